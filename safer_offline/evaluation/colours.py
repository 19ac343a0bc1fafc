"""Colours of the figures: of the Okabe-Ito palette, which colour-blind readers can tell apart."""

SAFE_COLOUR, UNSAFE_COLOUR, LIMIT_COLOUR = "#0072B2", "#D55E00", "#333333"
