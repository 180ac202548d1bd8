"""A relay that makes loopback as slow as a network: what arrives is passed on after half of a round trip."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def slow(routes: Path, doors: Mapping[tuple[str, int], tuple[str, int]], round_trip: float) -> Iterator[None]:
    """While the body runs, ``routes`` leads whoever dials a door through a relay to the address beside it.

    ``round_trip`` in seconds. Connecting takes one round trip, as it does on a network. The file is put back.
    """
    before = routes.read_text() if routes.exists() else None
    relay = _Relay(round_trip)
    moved = {f"{host}:{port}": list(relay.listen(target)) for (host, port), target in doors.items()}
    try:
        routes.write_text(json.dumps({**json.loads(before or "{}"), **moved}))
        yield
    finally:
        relay.stop()
        if before is None:
            routes.unlink()
        else:
            routes.write_text(before)


class _Relay:
    """Its own thread, as whoever is measured has the main one."""

    def __init__(self, round_trip: float) -> None:
        self._half = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="delay", daemon=True)
        self._thread.start()

    def listen(self, target: tuple[str, int]) -> tuple[str, int]:
        """Where ``target`` can be reached slowly."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(2 * self._half)
            try:
                there = await asyncio.open_connection(*target)
            except OSError:
                writer.close()
                return
            try:
                await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))
            except asyncio.CancelledError:  # asyncio's own callback for connections would print it
                pass
            finally:
                there[1].close()
                writer.close()

        async def start() -> tuple[str, int]:
            server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=256)
            host, port = server.sockets[0].getsockname()[:2]
            return str(host), int(port)

        return asyncio.run_coroutine_threadsafe(start(), self._loop).result()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Each piece leaves half a round trip after it came, however many are under way."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            while True:
                try:
                    piece = await source.read(1 << 16)
                except OSError:
                    piece = b""
                under_way.put_nowait((self._loop.time() + self._half, piece))
                if not piece:
                    return

        reading = self._loop.create_task(read())
        try:
            while True:
                due, piece = await under_way.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not piece:
                    sink.write_eof()
                    return
                sink.write(piece)
                await sink.drain()
        except OSError:
            sink.transport.abort()
        finally:
            reading.cancel()

    def stop(self) -> None:
        """Cuts everything."""

        async def end() -> None:
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
