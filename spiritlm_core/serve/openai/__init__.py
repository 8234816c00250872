"""The HTTP interface of OpenAI, for the clients that people have."""
