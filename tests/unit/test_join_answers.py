"""A store that joins believes an answer only if headquarters has computed its proof."""

import os
from dataclasses import replace
from datetime import UTC, datetime

from tenten.consumers.channel.joining.exchange import answer_check
from tenten.consumers.channel.joining.pending_key import PendingKey
from tenten.identity.join_proof import answer_mac
from tenten.identity.keys import KeyPair, new_key_pair, record_key
from tenten.identity.token import Token
from tenten.schemas.messages import JoinAnswer

HEADQUARTERS = new_key_pair()
KEY = PendingKey(pair=new_key_pair(), nonce="0" * 32)
TOKEN = Token(
    channel_id="dallas",
    secret=os.urandom(32),
    headquarters_public_key=HEADQUARTERS.public_key,
    expires_at=datetime(2026, 7, 1, tzinfo=UTC),
    kafka={},
)


def answer(by: KeyPair, store: PendingKey = KEY, channel_id: str = "dallas") -> JoinAnswer:
    """The answer "joined" to a store, as the owner of this key pair can compute it."""
    shared = record_key(by.private_key, store.pair.public_key)
    proof = answer_mac(shared, channel_id, store.nonce, "joined", "").hex()
    return JoinAnswer(nonce=store.nonce, outcome="joined", text="", mac=proof)


def test_only_headquarters_answer_to_this_attempt_is_believed() -> None:
    """Not that of anybody else, of another channel or attempt, nor one that was changed on its way."""
    believes = answer_check(TOKEN, KEY)
    other = PendingKey(pair=new_key_pair(), nonce=KEY.nonce)
    good = answer(HEADQUARTERS)
    assert believes(good)
    assert not believes(answer(new_key_pair()))
    assert not believes(answer(KEY.pair))
    assert not believes(answer(HEADQUARTERS, other))
    assert not believes(answer(HEADQUARTERS, channel_id="houston"))
    assert not believes(replace(good, outcome="used"))
    assert not believes(replace(good, text="call this number"))
    assert not believes(replace(good, nonce="1" * 32))
    assert not believes(replace(good, mac=""))
