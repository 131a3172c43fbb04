"""Where archives and models come from: files, folders, what ships, HTTP. Nothing is believed before it is verified."""
