"""The web side: requests and answers in OpenAI's format. It never touches the device."""
