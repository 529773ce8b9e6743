"""Holds connections to a Service for as long as it is let, each with a request now and then, so that none is idle: `connections.py ADDRESS:PORT COUNT`.
Says when all are there."""

import asyncio
import sys

# An idle connection is closed after 30 s.
PERIOD_SECONDS = 10
# Of requests at a time, so that the start is no flood.
BEGIN_AT_ONCE = 100


async def hold(address, port, begin, held):
    """One connection; another when it ends."""
    while True:
        try:
            async with begin:
                reader, writer = await asyncio.open_connection(address, port)
                await ask(address, reader, writer)
            held.release()
            while True:
                await asyncio.sleep(PERIOD_SECONDS)
                await ask(address, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(1)


async def ask(address, reader, writer):
    writer.write(f"GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)


async def main():
    (address, port), count = sys.argv[1].split(":"), int(sys.argv[2])
    begin, held = asyncio.Semaphore(BEGIN_AT_ONCE), asyncio.Semaphore(0)
    tasks = [asyncio.create_task(hold(address, port, begin, held)) for _ in range(count)]
    for _ in range(count):
        await held.acquire()
    print("held", flush=True)
    await asyncio.gather(*tasks)


asyncio.run(main())
