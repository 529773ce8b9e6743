//! Replicas of the API as processes, over a store that `novacron up` runs. Without that program, these tests are skipped.

mod drain;
mod jobs;
mod limits;
mod resources;
mod support;
