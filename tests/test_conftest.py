"""The tests' own floor: what conftest.py promises."""

import socket

import pytest
import torch

from minimllama import generate
from tests.tools.tiny import BOS, EOM, EOS, EOT, IMAGE, PAD, TINY, pictures, prompt


def test_the_network_is_out_of_reach_but_this_machine_is_not() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(server.getsockname()).close()
    with pytest.raises(ConnectionRefusedError, match="tests do not use the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(ConnectionRefusedError, match="tests do not use the network"):
        socket.getaddrinfo("example.org", 443)
    server.close()


def test_the_tiny_tokenizer_fits_the_tiny_model(tokenizer) -> None:
    assert tokenizer.vocabulary == TINY.text.vocab_size
    names = (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|image|>",
        "<|finetune_right_pad_id|>",
    )
    assert [tokenizer.special[name] for name in names] == [BOS, EOS, EOM, EOT, IMAGE, PAD]


def test_a_tiny_model_answers_with_and_without_pictures(make_model) -> None:
    model = make_model()
    images = pictures([[(30, 20)], []])
    prompts = [prompt(9, 1, image_at=[2]), prompt(5, 2)]
    with_images = generate(model, prompts, images, max_new_tokens=3)
    assert [len(row) for row in with_images] == [12, 8]
    assert torch.equal(with_images[1], generate(model, prompts[1:], max_new_tokens=3)[0])
