def use_distances() -> None:
    raise NotImplementedError
def lookup_distances() -> None:
    raise NotImplementedError
