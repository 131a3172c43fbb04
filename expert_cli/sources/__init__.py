"""Where archives and models come from: files, folders, what ships with the tool, HTTP. Nothing is believed unverified."""
