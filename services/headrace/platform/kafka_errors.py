"""What can go wrong with Kafka, by what the caller can do about it."""

from __future__ import annotations

from headrace.platform.errors import OperatorError


class KafkaFault(Exception):
    """Something is wrong with Kafka.

    Attributes:
        retriable: whether the same call may succeed later without a person's help.
    """

    retriable = False


class KafkaUnavailable(KafkaFault, OperatorError):
    """Kafka does not answer in time. The call may or may not have taken effect."""

    retriable = True


class KafkaRefused(KafkaFault):
    """Kafka refuses what was asked; asking again does not help."""


class ProducerFenced(KafkaFault):
    """Another producer has taken over this transactional id: this process must end."""


class TopicMissing(KafkaFault, OperatorError):
    """A topic is not there."""


class TopicMismatch(KafkaFault, OperatorError):
    """A topic is there, but not as it must be."""
