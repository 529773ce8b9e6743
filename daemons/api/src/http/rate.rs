//! How often somebody may ask: a token bucket (of requests, not of API tokens) for each principal, and for each address that
//! has not proved who it is. Of this replica alone.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Buckets that are not full; whoever comes beyond that shares one.
const BUCKETS_MAX: usize = 10_000;
/// Bits of an address of IPv6 that stand for a client: it has what comes behind them to itself.
const CLIENT_BITS: u32 = 64;
const OTHERS: &str = "others";
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

impl FromStr for Rate {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (per_second, burst) = text.split_once('/').ok_or(())?;
        let number = |text: &str| text.parse().ok().filter(|n| (1..=1_000_000).contains(n)).ok_or(());
        Ok(Self { per_second: number(per_second)?, burst: number(burst)? })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.per_second, self.burst)
    }
}

/// What a request has taken of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    rate: Rate,
    /// Requests that are left.
    left: u32,
    /// Seconds until the bucket is full again.
    full_in: u32,
    /// It was empty: seconds until there is one.
    pub(crate) wait: Option<u32>,
}

impl Taken {
    /// The headers of draft-ietf-httpapi-ratelimit-headers, and when to come again.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        let Rate { per_second, burst } = self.rate;
        let window = burst.div_ceil(per_second);
        let policy = format!("\"requests\";q={burst};w={window}");
        let limit = format!("\"requests\";r={};t={}", self.left, self.full_in);
        for (name, value) in [(POLICY, policy), (LIMIT, limit)] {
            headers.insert(name, HeaderValue::from_str(&value).expect("digits and signs"));
        }
        if let Some(wait) = self.wait {
            headers.insert(header::RETRY_AFTER, wait.into());
        }
    }
}

/// Who an address stands for.
pub(crate) fn client(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("address:{address}"),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> (128 - CLIENT_BITS) << (128 - CLIENT_BITS);
            format!("address:{}/{CLIENT_BITS}", std::net::Ipv6Addr::from(network))
        }
    }
}

/// The buckets.
pub(crate) struct Rates {
    /// `None`: there is no limit.
    rate: Option<Rate>,
    table: Mutex<Table>,
    began: Instant,
}

#[derive(Default)]
struct Table {
    buckets: HashMap<String, Bucket>,
    /// When full ones were looked for last, in seconds.
    swept_at: f64,
}

#[derive(Clone, Copy)]
struct Bucket {
    level: f64,
    /// In seconds.
    at: f64,
}

impl Rates {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { rate, table: Mutex::default(), began: Instant::now() }
    }

    /// Takes one request out of a bucket. `None`: there is no limit.
    pub(crate) fn take(&self, whose: &str) -> Option<Taken> {
        let rate = self.rate?;
        let now = self.began.elapsed().as_secs_f64();
        Some(self.table.lock().unwrap_or_else(PoisonError::into_inner).take(rate, whose, now))
    }

    /// Whether a bucket has nothing left.
    pub(crate) fn is_exhausted(&self, whose: &str) -> bool {
        let Some(rate) = self.rate else { return false };
        let now = self.began.elapsed().as_secs_f64();
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.buckets.get(whose).is_some_and(|bucket| bucket.level(rate, now) < 1.0)
    }
}

impl Table {
    fn take(&mut self, rate: Rate, whose: &str, now: f64) -> Taken {
        if !self.buckets.contains_key(whose)
            && self.buckets.len() >= BUCKETS_MAX
            && now - self.swept_at >= 1.0
        {
            self.swept_at = now;
            // A full one is like none.
            self.buckets.retain(|_, bucket| bucket.level(rate, now) < f64::from(rate.burst));
        }
        let has_room = self.buckets.contains_key(whose) || self.buckets.len() < BUCKETS_MAX;
        let whose = if has_room { whose } else { OTHERS };
        let full = Bucket { level: f64::from(rate.burst), at: now };
        let bucket = self.buckets.entry(whose.to_owned()).or_insert(full);
        let level = bucket.level(rate, now);
        let wait = (level < 1.0).then(|| ((1.0 - level) / f64::from(rate.per_second)).ceil().max(1.0) as u32);
        *bucket = Bucket { level: if wait.is_none() { level - 1.0 } else { level }, at: now };
        let full_in = ((f64::from(rate.burst) - bucket.level) / f64::from(rate.per_second)).ceil() as u32;
        Taken { rate, left: bucket.level as u32, full_in, wait }
    }
}

impl Bucket {
    fn level(&self, rate: Rate, now: f64) -> f64 {
        (self.level + (now - self.at).max(0.0) * f64::from(rate.per_second)).min(f64::from(rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 2, burst: 3 };

    #[test]
    fn a_bucket_empties_and_fills() {
        let mut table = Table::default();
        let mut take = |now| {
            let taken = table.take(RATE, "a", now);
            (taken.left, taken.wait)
        };
        assert_eq!([take(0.0), take(0.0), take(0.0)], [(2, None), (1, None), (0, None)]);
        assert_eq!(take(0.0), (0, Some(1)));
        assert_eq!(take(0.4), (0, Some(1)));
        assert_eq!(take(0.5), (0, None));
        assert_eq!(take(100.0), (2, None), "it holds no more than the burst");
        assert_eq!(take(99.0), (1, None), "a clock that goes back takes nothing away");
        assert_eq!(table.take(RATE, "b", 0.0).left, 2, "another one's is its own");
    }

    #[test]
    fn the_table_has_a_bound_and_those_beyond_it_share() {
        let mut table = Table::default();
        for n in 0..BUCKETS_MAX {
            table.take(RATE, &n.to_string(), 0.0);
        }
        for (left, name) in [(2, "x"), (1, "y"), (0, "z")] {
            assert_eq!(table.take(RATE, name, 0.0).left, left);
        }
        assert!(table.take(RATE, "v", 0.0).wait.is_some());
        assert_eq!(table.buckets.len(), BUCKETS_MAX + 1);
        // Later most are full again, and go.
        assert_eq!(table.take(RATE, "x", 10.0).left, 2);
        assert_eq!(table.buckets.len(), 1);
    }

    #[test]
    fn headers() {
        let mut headers = HeaderMap::new();
        Taken { rate: RATE, left: 0, full_in: 2, wait: Some(1) }.write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"requests\";q=3;w=2");
        assert_eq!(headers["ratelimit"], "\"requests\";r=0;t=2");
        assert_eq!(headers["retry-after"], "1");
    }

    #[test]
    fn addresses_of_one_client_are_one() {
        let client = |address: &str| client(address.parse().unwrap());
        assert_eq!(client("10.0.0.1"), client("::ffff:10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        assert_eq!("5/10".parse(), Ok(RATE).map(|_| Rate { per_second: 5, burst: 10 }));
        for text in ["", "5", "0/1", "1/0", "5/10/2", "-1/1", "1000001/1"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }
}
