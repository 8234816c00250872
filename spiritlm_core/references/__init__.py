"""Where models come from: references such as ``hf://org/name`` and ``pypi://package==1.0/file``, as local files."""
