"""How close the results are, whether the sliders work, and where styles lie."""
