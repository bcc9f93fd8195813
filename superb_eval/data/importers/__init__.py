"""Reads utterances from the data folders of other toolkits: Kaldi and ESPnet, Hugging Face, Lhotse, class folders."""
