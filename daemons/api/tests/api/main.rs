//! Replicas of the API as processes, over a store that `novacron up` runs. Without that program, these tests are skipped.

mod audit;
mod auth;
mod cache;
mod drain;
mod events;
mod history;
mod identity;
mod jobs;
mod limits;
mod migrations;
mod outbox;
mod page;
mod postgres;
mod pretended;
mod rate;
mod resources;
mod rollout;
mod rules;
mod schedules;
mod stopping;
mod support;
mod tls;
mod traces;
