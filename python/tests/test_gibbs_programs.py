"""Programs as gibbs' users have them: the import line is changed, and nothing else."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap

import pytest

PROGRAMS = {
    "readme": """
        import asyncio
        import time
        from gibbs import Hub, Worker

        class MyAwesomeModel:
            def __init__(self, wait_time=0.25):
                super().__init__()
                self.wait_time = wait_time

            def __call__(self, x):
                time.sleep(self.wait_time)
                return x**2

        async def main():
            hub = Hub(port=PORT)
            workers = [Worker(MyAwesomeModel, wait_time=0.1, gibbs_port=PORT) for _ in range(4)]
            for worker in workers:
                worker.start()
            print(await asyncio.gather(*(hub.request(x) for x in range(10))))
            for worker in workers:
                worker.terminate()

        if __name__ == "__main__":
            asyncio.run(main())
    """,
    "transformer": """
        import asyncio
        from gibbs import Hub, UserCodeException, Worker

        class Classifier:
            def __init__(self, model_name, device="cpu", **options):
                self.model = (model_name, device, options)

            def __call__(self, sentences, top_k=1):
                if not sentences:
                    raise ValueError("no sentences")
                return [{"label": self.model[0], "score": len(s) / 10, "k": top_k} for s in sentences]

        async def main():
            hub = Hub(port=PORT, heartbeat_interval=0.5, resp_buffer_size=128)
            worker = Worker(
                Classifier, "bert-base", device="cuda:0", half=True,
                gibbs_host="localhost", gibbs_port=PORT, gibbs_heartbeat_interval=0.5, gibbs_reset_after_n_miss=3,
            )
            worker.start()
            print(await hub.request(["hello"], top_k=2))
            try:
                await hub.request([])
            except UserCodeException as error:
                print(str(error).splitlines()[0], str(error).splitlines()[-1])
            worker.terminate()
            worker.join()

        if __name__ == "__main__":
            asyncio.run(main())
    """,
    "retries": """
        import asyncio
        import os
        from gibbs import Hub, Worker

        class Once:
            def __init__(self, path):
                self.path = path

            def __call__(self):
                import time
                if not os.path.exists(self.path):
                    open(self.path, "w").close()
                    time.sleep(1000)
                return "answered"

        async def main():
            hub = Hub(port=PORT)
            workers = [Worker(Once, "begun", gibbs_port=PORT) for _ in range(2)]
            for worker in workers:
                worker.start()
            print(await hub.request(gibbs_timeout=2, gibbs_retries=1))
            for worker in workers:
                worker.kill()

        if __name__ == "__main__":
            asyncio.run(main())
    """,
    "infinite retries": """
        import asyncio
        from gibbs import Hub, Worker

        class Square:
            def __call__(self, x):
                return x**2

        async def main():
            hub = Hub(PORT)
            request = asyncio.create_task(hub.request(5, gibbs_timeout=0.05, gibbs_retries=-1))
            await asyncio.sleep(0.3)
            print(request.done())
            try:
                await hub.request(1, gibbs_timeout=0.05)
            except asyncio.TimeoutError:
                print("no worker yet")
            worker = Worker(Square, gibbs_port=PORT)
            worker.start()
            # As many times as it takes: the worker's process has to start within one of them.
            print(await hub.request(6, gibbs_timeout=5, gibbs_retries=-1), await request)
            worker.kill()

        if __name__ == "__main__":
            asyncio.run(main())
    """,
}

OUTPUT = {
    "readme": "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n",
    "transformer": "[{'label': 'bert-base', 'score': 0.5, 'k': 2}]\n"
    "Exception raised in user-defined code. Traceback : ValueError: no sentences\n",
    "retries": "answered\n",
    "infinite retries": "False\nno worker yet\n36 25\n",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_with_only_its_import_changed(name, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = textwrap.dedent(PROGRAMS[name]).replace("from gibbs import", "from gatewright import")
    (tmp_path / "program.py").write_text(program.replace("PORT", str(port)))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, OUTPUT[name]), done.stderr
