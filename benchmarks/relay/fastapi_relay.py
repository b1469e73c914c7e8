"""The design that the relay replaces, as small as it can be: FastAPI, one worker, every answer looked up in Redis.

Run it: python fastapi_relay.py PORT ORIGIN_PORT REDIS_PORT. It needs fastapi, httpx, redis and uvicorn[standard].
"""

import sys

import httpx
import redis.asyncio
import uvicorn
from fastapi import FastAPI, Response

PORT, ORIGIN, REDIS = map(int, sys.argv[1:])
TTL = 3600

app = FastAPI()
cache = redis.asyncio.Redis(port=REDIS)


@app.get("/{path:path}")
async def relay(path: str) -> Response:
    key = f"relay/{path}"
    text = await cache.get(key)
    if text is None:
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{ORIGIN}/{path}")).content
        await cache.set(key, text, ex=TTL)
    return Response(text, media_type="application/json")


uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error", access_log=False)
