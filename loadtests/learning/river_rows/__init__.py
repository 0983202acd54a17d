"""The rows of River's own benchmark page, through the learner alone and through the whole path.

Values of Bananas and Elec2 are decimal numbers with six digits behind the point, which float32 does not hold, and
trees split on their last bits. Their features are declared in millionths, whole numbers that float32 holds exactly, and
the recipe's first step divides them: so River learns from the doubles that its own benchmark learns from.
"""
