"""An OpenAI-compatible server for one language model on one Intel GPU or CPU."""
