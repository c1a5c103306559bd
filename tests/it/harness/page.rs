//! The metrics page, parsed as Prometheus does.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Sidecar};
use crate::support::client::Client;

/// The interval at which a value is polled.
const POLL: Duration = Duration::from_millis(5);
/// The prefix of our metrics.
const PREFIX: &str = "wechat_with_deepseek_";

/// A page of metrics.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// As it came.
    pub(crate) text: String,
    values: BTreeMap<String, f64>,
}

impl Page {
    /// Reads a page.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number in {line:?}")))
        });
        Self { text: text.to_owned(), values: values.collect() }
    }

    /// The value of a series, its name without our prefix: `messages_sent_total`, `duplicates_total{kind="joined"}`.
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        let own = self.values.get(&format!("{PREFIX}{series}")).or_else(|| self.values.get(series));
        *own.unwrap_or_else(|| panic!("{series} is not in\n{}", self.text))
    }

    /// The sum of all series of a name.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let beginning = format!("{PREFIX}{name}{{");
        self.values.iter().filter(|(series, _)| series.starts_with(&beginning)).map(|(_, value)| value).sum()
    }

    /// Names and labels of all series, in their order on the page.
    pub(crate) fn series(&self) -> Vec<&str> {
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
    }

    /// The series of a family that are not zero, with their values.
    pub(crate) fn nonzero(&self, name: &str) -> Vec<(&str, f64)> {
        let beginning = format!("{PREFIX}{name}{{");
        let series = self.values.iter().filter_map(|(series, value)| {
            let labels = series.strip_prefix(&beginning)?.strip_suffix('}')?;
            (*value != 0.0).then_some((labels, *value))
        });
        series.collect()
    }
}

impl Sidecar {
    /// Its metrics now.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Page {
        page(&mut self.client())
    }

    /// Blocks until a series has this value, and gives the page.
    #[track_caller]
    pub(crate) fn wait_metric(&self, series: &str, wanted: f64) -> Page {
        let (start, mut client) = (Instant::now(), self.client());
        loop {
            let page = page(&mut client);
            if page.value(series) == wanted {
                return page;
            }
            assert!(start.elapsed() < PATIENCE, "{series} is {}, not {wanted}", page.value(series));
            thread::park_timeout(POLL);
        }
    }
}

#[track_caller]
fn page(client: &mut Client) -> Page {
    let reply = client.get("/metrics").expect("the page of metrics");
    assert_eq!(reply.status, 200, "{}", reply.text);
    Page::read(&reply.text)
}
