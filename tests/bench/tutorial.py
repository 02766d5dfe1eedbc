"""A server as tutorials on BigDL-LLM write it: FastAPI, and for every request a thread with the model's `generate`.

``tutorial.py MODEL LOW_BIT PORT`` in the environment of engine bigdl. It speaks as much of OpenAI's API as
`xpuserve bench` needs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from threading import Thread
from typing import Any

import uvicorn
from bigdl.llm.transformers import AutoModelForCausalLM
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from transformers import AutoTokenizer, TextIteratorStreamer

PROMPT = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def main() -> int:
    """Serve until a signal ends it."""
    path, low_bit, port = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(
        path, load_in_low_bit=low_bit, optimize_model=False, use_safetensors=True
    )
    uvicorn.run(app_of(tokenizer, model), host="127.0.0.1", port=int(port), access_log=False)
    return 0


def app_of(tokenizer: Any, model: Any) -> FastAPI:
    """The web application."""
    app = FastAPI()

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"data": [{"id": "tutorial"}]}

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> StreamingResponse:
        prompt = PROMPT.format(question=body["messages"][-1]["content"])
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        most = body["max_tokens"]
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        answers: list[Any] = []

        def generate() -> None:
            least = most if body.get("ignore_eos") else None
            options = {"max_new_tokens": most, "min_new_tokens": least, "do_sample": False}
            try:
                answers.append(model.generate(**inputs, streamer=streamer, **options))
            except Exception:
                streamer.end()  # or the client would wait for ever
                raise

        thread = Thread(target=generate)
        thread.start()

        def events() -> Iterator[str]:
            for text in streamer:
                yield event({"choices": [{"index": 0, "delta": {"content": text}}]})
            thread.join()
            before = inputs["input_ids"].shape[1]
            usage = {"prompt_tokens": before, "completion_tokens": answers[0].shape[1] - before}
            yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def event(data: dict[str, Any]) -> str:
    """One event of a stream."""
    return f"data: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    sys.exit(main())
