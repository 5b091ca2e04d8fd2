def present(record):
    return "", "", []
