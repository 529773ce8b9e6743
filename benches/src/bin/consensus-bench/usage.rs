//! What processes use, as the kernel counts it.

use anyhow::{Context as _, Result};

/// Clock ticks of /proc/PID/stat; the same on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What all members together have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) written_bytes: f64,
    /// Of the largest member, now.
    pub(crate) rss_kib_max: f64,
}

impl Usage {
    pub(crate) fn of(processes: impl Iterator<Item = u32>) -> Result<Self> {
        let mut usage = Self::default();
        for id in processes {
            let read = |file: &str| {
                let path = format!("/proc/{id}/{file}");
                std::fs::read_to_string(&path).with_context(|| path)
            };
            let stat = read("stat")?;
            // Behind the name in parentheses, user and system time are the 12th and 13th field.
            let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |n: usize| {
                let field = fields.get(n).and_then(|field| field.parse::<f64>().ok());
                field.with_context(|| format!("/proc/{id}/stat: {stat}"))
            };
            usage.cpu_s += (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
            usage.written_bytes += number(&read("io")?, "write_bytes:")?;
            usage.rss_kib_max = usage.rss_kib_max.max(number(&read("status")?, "VmRSS:")?);
        }
        Ok(usage)
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes - before.written_bytes,
            rss_kib_max: self.rss_kib_max,
        }
    }
}

fn number(text: &str, key: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {key} in {text}"))
}
