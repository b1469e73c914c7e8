"""A model that takes its time: the class that the guide serves."""

import time


class MyAwesomeModel:
    """Squares a number after `wait_time` seconds, as a real model would after thinking."""

    def __init__(self, wait_time: float) -> None:
        self.wait_time = wait_time

    def __call__(self, x: float) -> float:
        time.sleep(self.wait_time)
        return x**2
