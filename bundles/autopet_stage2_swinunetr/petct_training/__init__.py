"""What a run of a network bundle does around the MONAI objects. The same files lie in every bundle: `make sync` spreads them."""
