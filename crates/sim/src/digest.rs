//! One number for everything that happened in a run: two runs with the same number were the same run.

use crate::history::{Answer, Fact, Question, What};
use domain::{Batch, State};
use std::fmt::{self, Write as _};

/// The running digest.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.note(text.as_bytes());
        Ok(())
    }
}

impl Digest {
    /// What it has come to.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Bytes that were written, or said.
    pub fn note(&mut self, bytes: &[u8]) {
        // Eight at a time: this sees every byte that a run writes.
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
        self.mix(bytes.len() as u64);
    }

    const fn mix(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Something that happened.
    pub fn note_fact(&mut self, fact: &Fact) {
        self.mix(fact.at_ms);
        match &fact.what {
            What::ServerStarted { server, state } => self.note_state(1, *server, state),
            What::Restored { server, state } => self.note_state(2, *server, state),
            What::Shown { server, state } => self.note_state(3, *server, state),
            What::Applied { server, batch, .. } => self.note_batch(4, *server, batch),
            What::Watched { watcher, batch, .. } => self.note_batch(5, *watcher, batch),
            What::Answered { client, answer: Answer::State(state), .. } => self.note_state(6, *client, state),
            What::Asked { client, operation, question: Question::Change(request) } => {
                self.mix(*client);
                self.mix(*operation);
                self.note(&api::codec::encode(&**request));
            }
            // A digest takes any text.
            other => drop(write!(self, "{other:?}")),
        }
    }

    fn note_state(&mut self, kind: u64, whose: u64, state: &State) {
        for number in [kind, whose, state.revision.0, state.at_ms] {
            self.mix(number);
        }
    }

    fn note_batch(&mut self, kind: u64, whose: u64, batch: &Batch) {
        for number in [kind, whose, batch.base.0, batch.at_ms, batch.events.len() as u64] {
            self.mix(number);
        }
    }
}
