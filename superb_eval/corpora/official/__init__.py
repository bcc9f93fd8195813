"""Official corpora in the layouts that their makers publish."""
