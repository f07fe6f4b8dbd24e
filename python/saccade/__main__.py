"""python -m saccade: versions, and what each backend says of this machine."""

from . import __version__, backends


def main() -> None:
    print(f"saccade {__version__}")
    for backend in backends():
        print(f"  {backend.name:16} {'usable' if backend.usable else 'not usable'}: {backend.title}")
        for reason in backend.reasons:
            print(f"  {'':16} - {reason}")


main()
