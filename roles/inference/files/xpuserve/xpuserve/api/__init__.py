"""The web side: requests in OpenAI's shape in, answers in OpenAI's shape out. It never touches the device."""
