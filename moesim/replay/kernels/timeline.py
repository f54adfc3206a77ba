def timeline() -> None:
    raise NotImplementedError
