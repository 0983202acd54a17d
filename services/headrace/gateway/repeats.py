"""A first answer given again. Pure."""

from __future__ import annotations

from headrace.v1.prediction_pb2 import ROLE_REPEAT, Prediction


def repeat_of(record: bytes, draft: Prediction) -> Prediction:
    """The first answer again, as an answer to another request for the event.

    Args:
        record: the first answer.
        draft: what this request would have got.
    """
    repeat = Prediction.FromString(record)
    repeat.role = ROLE_REPEAT
    repeat.prediction_id = draft.prediction_id
    repeat.channel = draft.channel
    repeat.received_time_us = draft.received_time_us
    repeat.answered_time_us = draft.answered_time_us
    repeat.ingested = False
    repeat.ClearField("source")
    if draft.HasField("source"):
        repeat.source.CopyFrom(draft.source)
    return repeat
