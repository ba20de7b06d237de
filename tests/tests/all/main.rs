//! Everything that starts servers, in one binary.

mod dialogues;
