"""What keys and choices of earlier versions are called now; who types an old one is told the new one."""

#: Keys by the names that they had.
KEYS = {
    "recipe.label_smoothing": "loss.label_smoothing",
    "recipe.class_weights": "loss.class_weights",
    "recipe.logit_adjustment": "loss.logit_adjustment",
}

#: Choices, GROUP/NAME, that are gone, and what to give.
CHOICES = {"recipe/smooth": "recipe=ema loss=smooth"}
