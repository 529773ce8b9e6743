//! Side-by-side measurement.
//!
//! Owns: the order of runs. Contenders alternate: each run of each contender gets a new lab, and in one round all of
//! them meet the same seed, so a slow minute of the machine or a bad seed hits everyone and not one.

use crate::contender::{Contender, Tools};
use crate::lab::Lab;
use crate::machine::{self, IdleMeter, Machine};
use crate::report::{ContenderReport, Report, Run, ScenarioReport};
use crate::scenario::Scenario;
use anyhow::Result;
use std::sync::Mutex;
use std::time::Duration;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Links; each carries the seed of its first run.
    pub scenarios: Vec<Scenario>,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// Runs of each contender on each link.
    pub runs: u32,
    /// Runs of those that nothing is required against (`Contender::is_extra`): they take part in the first rounds only.
    pub extra_runs: u32,
    /// Length of a run.
    pub time: Duration,
    /// Scenarios at a time. More than one is for machines that stay mostly idle meanwhile: each run says how idle.
    pub jobs: usize,
    /// Where the programs are.
    pub tools: Tools,
}

/// Runs the plan, `plan.jobs` scenarios at a time; `progress` gets a line per run, `finished` each scenario's report as
/// soon as it is complete. A contender that is missing or fails is part of the report; an error means that the lab itself
/// could not be made, or comes from `finished`, and no further scenario is begun.
pub fn compare(
    plan: &Plan,
    progress: impl FnMut(&str) + Send,
    finished: impl FnMut(&ScenarioReport) -> Result<()> + Send,
) -> Result<Report> {
    // Now, not at the end: what is checked out may change during an hour of runs.
    let machine = Machine::current();
    let progress = Mutex::new(progress);
    let done = Mutex::new((finished, Report::default()));
    let scenarios = Mutex::new(plan.scenarios.iter());
    let work = || -> Result<()> {
        loop {
            let Some(scenario) = scenarios.lock().expect("nobody panics").next() else { return Ok(()) };
            let report = compare_on(scenario, plan, &machine, &progress);
            let mut done = done.lock().expect("nobody panics");
            let (finished, all) = &mut *done;
            let ended = report.and_then(|report| {
                let ended = finished(&report);
                all.put(report);
                if ended.is_err() {
                    // It took long: at least it is seen.
                    progress.lock().expect("nobody panics")(&all.table());
                }
                ended
            });
            if ended.is_err() {
                scenarios.lock().expect("nobody panics").by_ref().for_each(drop);
                return ended;
            }
        }
    };
    std::thread::scope(|threads| {
        let workers: Vec<_> = (0..plan.jobs.max(1)).map(|_| threads.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker panicked"))
    })?;
    Ok(done.into_inner().expect("nobody panics").1)
}

fn compare_on(
    scenario: &Scenario,
    plan: &Plan,
    machine: &Machine,
    progress: &Mutex<impl FnMut(&str)>,
) -> Result<ScenarioReport> {
    let date = machine::date();
    let skipped: Vec<_> = plan.contenders.iter().map(|c| c.missing(&plan.tools)).collect();
    let mut runs = vec![vec![]; plan.contenders.len()];
    for round in 0..plan.runs {
        let scenario = Scenario { seed: scenario.seed + u64::from(round), ..scenario.clone() };
        for (i, contender) in plan.contenders.iter().enumerate() {
            if skipped[i].is_some() || round >= plan.runs_of(contender) {
                continue;
            }
            let run = measure(contender, &scenario, plan)?;
            progress.lock().expect("nobody panics")(&format!(
                "{} {contender} run {}/{}: {}",
                scenario.name,
                round + 1,
                plan.runs_of(contender),
                line(&run)
            ));
            runs[i].push(run);
        }
    }
    let contenders = plan.contenders.iter().zip(skipped).zip(runs);
    Ok(ScenarioReport {
        scenario: scenario.clone(),
        machine: machine.clone(),
        date,
        time_s: plan.time.as_secs(),
        runs: plan.runs,
        contenders: contenders
            .map(|((c, skipped), runs)| ContenderReport::new(c.to_string(), skipped, runs))
            .collect(),
    })
}

impl Plan {
    fn runs_of(&self, contender: &Contender) -> u32 {
        if contender.is_extra() { self.extra_runs.min(self.runs) } else { self.runs }
    }
}

fn measure(contender: &Contender, scenario: &Scenario, plan: &Plan) -> Result<Run> {
    let lab = Lab::new(scenario)?;
    let idle = IdleMeter::start();
    let measured = contender.measure(&lab, scenario, plan.time, &plan.tools);
    let idle = idle.share();
    let (measured, error) = match measured {
        Ok(measured) => (Some(measured), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Ok(Run {
        seed: scenario.seed,
        goodput_mbit: measured.as_ref().map(|measured| measured.bits_per_second / 1e6),
        course: measured.map(|measured| measured.course).unwrap_or_default(),
        error,
        link: lab.stats().summary(),
        idle,
    })
}

fn line(run: &Run) -> String {
    let result = match (run.goodput_mbit, &run.error) {
        (Some(mbit), _) => format!("{mbit:.1} Mbit/s"),
        (None, error) => format!("failed: {}", error.as_deref().unwrap_or("")),
    };
    let (max, p99) = (run.link.late_max_us / 1e3, run.link.late_p99_us);
    let void = if run.link.void { ", VOID" } else { "" };
    format!("{result}, late max {max:.1} ms p99 {p99:.0} us, idle {:.0} %{void}", run.idle * 100.0)
}
