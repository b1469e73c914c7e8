#!/usr/bin/env python3
"""Where to have lunch: asks the relay for the restaurants and their menus of today.

    lunch.py              list the restaurants, choose one by its number
    lunch.py bikupan      the menu of one restaurant

The relay is at http://127.0.0.1:8080 unless LUNCH_URL says otherwise.
"""

import argparse
import itertools
import json
import os
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ.get("LUNCH_URL", "http://127.0.0.1:8080")


class Failure(Exception):
    """What went wrong, and what to do about it."""

    def __init__(self, what: str, tip: str) -> None:
        super().__init__(what)
        self.tip = tip


class Spinner:
    """Turns on a terminal while something takes its time; says at the end how it went."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.turn) if sys.stderr.isatty() else None

    def turn(self) -> None:
        for sign in itertools.cycle("|/-\\"):
            print(f"\r{sign} {self.what}", end="", file=sys.stderr, flush=True)
            if self.done.wait(0.1):
                return

    def __enter__(self) -> None:
        if self.thread:
            self.thread.start()

    def __exit__(self, kind: object, *_: object) -> None:
        self.done.set()
        how = "[Failed]" if kind else "[Success]"
        if self.thread:
            self.thread.join()
            print("\r", end="", file=sys.stderr)
        print(f"{self.what} {how}", file=sys.stderr)


def fetch(path: str, what: str) -> dict:
    with Spinner(what):
        try:
            with urllib.request.urlopen(URL + path, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise Failure(
                    f"nothing is known at {path}",
                    "call it without an id for a list of the restaurants",
                ) from error
            raise Failure(f"the relay answered with {error.code}", "try again later") from error
        except (OSError, ValueError) as error:
            raise Failure(
                f"no menu came from {URL}: {error}",
                "start the relay, or say with LUNCH_URL where it is",
            ) from error


def choose() -> str:
    restaurants = fetch("/restaurant", "Looking for restaurants")["restaurants"]
    for number, restaurant in enumerate(restaurants):
        print(f"{number:2}) {restaurant['name']} {restaurant['campus']}")
    try:
        answer = input("Choose a restaurant [number]: ")
    except EOFError:
        answer = ""
    if not answer.isdigit() or int(answer) >= len(restaurants):
        raise Failure(f"`{answer}` is no number of the list", f"choose from 0 to {len(restaurants) - 1}")
    return restaurants[int(answer)]["identifier"]


def show(identifier: str) -> None:
    path = "/restaurant/" + urllib.parse.quote(identifier, safe="")
    restaurant = fetch(path, "Looking for the menu")["restaurant"]
    print(f"\n{restaurant['title']}, {restaurant['location']}\n")
    for dish in restaurant["menu"]:
        print(f"- {dish.get('dish_en') or dish.get('dish_sv') or ', '.join(dish.values())}")
    if not restaurant["menu"]:
        print("No menu published for today")
    print(f"\nWebsite:    {restaurant['url']}")
    print(f"Directions: {restaurant['map_url']}")
    print(f"ID:         {identifier}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="lunch", description="Where to have lunch today.")
    parser.add_argument("id", nargs="?", help="id of a restaurant; without it, choose one from the list")
    arguments = parser.parse_args()
    try:
        show(arguments.id or choose())
    except Failure as failure:
        print(f"error: {failure}\ntip: {failure.tip}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
