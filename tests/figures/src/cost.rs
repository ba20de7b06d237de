//! What a month costs: Cirrus, one item for each message, and a relational database.

use crate::day::{Assumed, Day, HOURS, RECEIVED, peak};
use crate::measured::{STORED, VIEW_MEMBER};
use crate::plan::Resources;
use crate::price::Prices;

mod tables;

pub use tables::table;

/// Hours and days of a month, and bytes of a GB.
const HOURS_A_MONTH: f64 = 730.0;
const DAYS: f64 = HOURS_A_MONTH / 24.0;
const GB: f64 = 1_073_741_824.0;
const SECONDS: f64 = 3_600.0;

/// Bytes of a read unit.
pub(crate) const READ_UNIT: f64 = 4_096.0;
/// What a stanza takes between nodes: from the pipe to the sender's home, to its copy, to the
/// recipient's home, to its copy, to that one's pipe.
const HOPS: f64 = 5.0;
/// Bytes of a stanza between nodes.
const HOP_BYTES: f64 = 700.0;
/// What a network load balancer's capacity unit holds: new connections a second, connections, and
/// GB an hour.
const LCU: [f64; 3] = [800.0, 100_000.0, 1.0];
/// Metrics of an instance with detailed monitoring, and those that Cirrus publishes.
const INSTANCE_METRICS: f64 = 7.0;
const OWN_METRICS: f64 = 5.0;
/// Alarms that a policy of target tracking makes.
const TRACKING_ALARMS: f64 = 2.0;

/// A month's bill, line by line.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bill {
    /// What and how many dollars.
    pub lines: Vec<(&'static str, f64)>,
    /// How many of them are for storing.
    pub store: f64,
}

impl Bill {
    /// Dollars.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.lines.iter().map(|(_, dollars)| dollars).sum()
    }
}

/// Who pays what for how much.
pub struct Question<'a> {
    /// Users a day.
    pub users: f64,
    /// What Terraform makes.
    pub resources: &'a Resources,
    /// What it costs.
    pub prices: &'a Prices,
    /// What is assumed.
    pub assumed: Assumed,
}

impl Question<'_> {
    /// Nodes in each hour of a day.
    #[must_use]
    pub fn nodes(&self) -> [f64; 24] {
        let sessions = self.users * self.assumed.sessions;
        let full = self.resources.sessions_per_node * self.assumed.sessions_per_node;
        HOURS.map(|share| {
            (sessions * share / full)
                .ceil()
                .max(self.resources.nodes_min)
        })
    }

    /// Node-hours of a month.
    fn node_hours(&self) -> f64 {
        self.nodes().iter().sum::<f64>() * DAYS
    }

    /// The bill of Cirrus.
    ///
    /// # Errors
    /// When a step or a price is missing.
    pub fn cirrus(&self) -> Result<Bill, String> {
        let day = Day::of(&self.assumed)?;
        let price = |name: &str| self.prices.of(name);
        let month = self.users * DAYS;
        let (leases, looks) = self.cluster();
        let table = self.users * day.item_bytes * self.assumed.table_days / GB;
        let objects = self.users * day.segment_bytes * self.assumed.kept_days / GB;
        let mut lines = vec![
            ("DynamoDB: writes", month * day.writes * price("write")?),
            ("DynamoDB: reads", month * day.reads * price("read")?),
            (
                "DynamoDB: leases and the view",
                leases * price("write")? + looks * price("read")?,
            ),
            ("DynamoDB: storage", table * price("table")?),
            ("DynamoDB: backup", table * self.backup()?),
            ("S3: segments", objects * price("object")?),
            (
                "S3: requests",
                month * day.seals * (STORED.seal_objects * price("put")? + price("get")?),
            ),
        ];
        let store = lines.iter().map(|(_, dollars)| dollars).sum();
        lines.extend(self.rest(&day)?);
        Ok(Bill { lines, store })
    }

    /// Units of leases, and of looks at the view and, between two, at the other's lease.
    fn cluster(&self) -> (f64, f64) {
        let mut units = (0.0, 0.0);
        for nodes in self.nodes() {
            let seconds = nodes * SECONDS * DAYS;
            let view = (nodes * VIEW_MEMBER / READ_UNIT).ceil();
            let other = if nodes == 2.0 { 1.0 } else { 0.0 };
            units.0 += seconds;
            units.1 += seconds * (view + other);
        }
        units
    }

    fn backup(&self) -> Result<f64, String> {
        match self.resources.backed_up && self.assumed.backed_up {
            true => self.prices.of("backup"),
            false => Ok(0.0),
        }
    }

    /// What every design needs: nodes, the balancer, traffic, alarms.
    fn rest(&self, day: &Day) -> Result<Vec<(&'static str, f64)>, String> {
        let (resources, price) = (self.resources, |name: &str| self.prices.of(name));
        let hours = self.node_hours();
        let nodes = hours / HOURS_A_MONTH;
        let instance = price(&resources.instance)?;
        let spot = (hours - HOURS_A_MONTH).max(0.0) * self.assumed.spot;
        let sent = self.users * day.sent * DAYS / GB;
        let apart = (resources.zones - 1.0) / resources.zones;
        let between = self.users * day.stanzas * DAYS * HOPS * HOP_BYTES / GB;
        let crossing = apart * (sent * (1.0 + RECEIVED) + between);
        let alarms = resources.alarm_metrics + resources.trackings * TRACKING_ALARMS;
        let monitored = if resources.monitored {
            INSTANCE_METRICS
        } else {
            0.0
        };
        let metrics = OWN_METRICS + nodes * monitored;
        Ok(vec![
            (
                "EC2: nodes",
                instance * (hours - spot * (1.0 - price("spot")?)),
            ),
            (
                "EBS: volumes",
                nodes * resources.volume_gb * price("volume")?,
            ),
            (
                "public addresses",
                (hours + resources.zones * resources.balancers * HOURS_A_MONTH) * price("address")?,
            ),
            (
                "balancer",
                resources.balancers * HOURS_A_MONTH * price("balancer")?
                    + self.capacity(day) * price("lcu")?,
            ),
            ("data to clients", sent * price("out")?),
            ("data between zones", crossing * 2.0 * price("zone")?),
            (
                "CloudWatch",
                alarms * price("alarm")?
                    + metrics * price("metric")?
                    + resources.dashboards * price("dashboard")?
                    + hours * 60.0 * price("report")?,
            ),
        ])
    }

    /// Capacity units of the balancer in a month: in each hour that of which most is used.
    fn capacity(&self, day: &Day) -> f64 {
        let mean = HOURS.iter().sum::<f64>();
        let hour = |share: &f64| {
            let users = self.users * share / mean;
            let used = [
                users * day.connections / SECONDS,
                self.users * self.assumed.sessions * share,
                users * day.sent * (1.0 + RECEIVED) / GB,
            ];
            let used = used.iter().zip(LCU).map(|(used, one)| used / one);
            used.fold(0.0, f64::max)
        };
        HOURS.iter().map(hour).sum::<f64>() * DAYS
    }

    /// The bill of a design in which every message, receipt and marker is an item of its own for
    /// each side, what waits is an item more until it is delivered, and all stays in the table.
    ///
    /// # Errors
    /// As [`Question::cirrus`].
    pub fn items(&self) -> Result<Bill, String> {
        let day = Day::of(&self.assumed)?;
        let price = |name: &str| self.prices.of(name);
        let month = self.users * DAYS;
        let message = (STORED.message + self.assumed.body - crate::measured::BODY as f64).max(1.0);
        let units = (message / crate::day::WRITE_UNIT).ceil();
        // Those of Cirrus are for its sealing and for messages; the others are the same.
        let sealing = day.seals * STORED.seal_writes;
        let own = day.writes - sealing - self.messages(&day);
        let writes = own + day.messages * 2.0 * units + day.receipts * 4.0 + day.late * 2.0 * units;
        let reads = day.reads - day.seals * STORED.seal_reads;
        let bytes = day.messages * 2.0 * (message + crate::day::ITEM_OVERHEAD)
            + day.receipts * 4.0 * (RECEIPT + crate::day::ITEM_OVERHEAD);
        let table = self.users * bytes * self.assumed.kept_days / GB;
        let mut lines = vec![
            ("DynamoDB: writes", month * writes * price("write")?),
            ("DynamoDB: reads", month * reads * price("read")?),
            ("DynamoDB: storage", table * price("table")?),
            ("DynamoDB: backup", table * self.backup()?),
        ];
        let store = lines.iter().map(|(_, dollars)| dollars).sum();
        lines.extend(self.rest(&day)?);
        Ok(Bill { lines, store })
    }

    /// Write units of a day's messages at Cirrus.
    fn messages(&self, day: &Day) -> f64 {
        let longer = self.assumed.body - crate::measured::BODY as f64;
        let taken = STORED.message + STORED.receipt_and_marker + longer;
        day.messages * 2.0 * (taken / crate::day::WRITE_UNIT).ceil()
    }

    /// The bill with a relational database in place of DynamoDB and S3.
    ///
    /// # Errors
    /// As [`Question::cirrus`].
    pub fn relational(&self) -> Result<Bill, String> {
        let day = Day::of(&self.assumed)?;
        let price = |name: &str| self.prices.of(name);
        let asked = Relational::of(self, &day);
        let mut lines = vec![
            (
                "RDS: instances",
                asked.instances * asked.vcpus * HOURS_A_MONTH * price("database")?,
            ),
            ("RDS: storage", asked.gb * price("rows")?),
            ("RDS: I/O", asked.iops * price("iops")?),
        ];
        let store = lines.iter().map(|(_, dollars)| dollars).sum();
        lines.extend(self.rest(&day)?);
        Ok(Bill { lines, store })
    }
}

/// Bytes of a receipt or a marker as an item of its own.
const RECEIPT: f64 = 250.0;

/// A relational database that holds the same day. All of it is assumed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relational {
    /// Databases among which accounts are divided, because one holds no more.
    pub instances: f64,
    /// vCPUs of each.
    pub vcpus: f64,
    /// GB of all.
    pub gb: f64,
    /// I/O a second beyond those included.
    pub iops: f64,
}

/// Bytes of a row with its indices, besides the body; rows that a vCPU inserts in a second; I/O of
/// a row; room that is kept free; busiest seconds against the busiest hour.
const ROW: f64 = 600.0;
const ROWS_A_VCPU: f64 = 1_000.0;
const IO_A_ROW: f64 = 1.0;
const ROOM: f64 = 1.2;
pub(crate) const BURST: f64 = 2.0;
/// Most GB and vCPUs of an instance; I/O a second included below and from 400 GB.
const MOST_GB: f64 = 65_536.0;
const MOST_VCPUS: f64 = 64.0;
const INCLUDED: [f64; 2] = [3_000.0, 12_000.0];
const STRIPED_GB: f64 = 400.0;

impl Relational {
    fn of(question: &Question<'_>, day: &Day) -> Self {
        let messages = day.messages * 2.0;
        let rows = messages + day.receipts * 4.0;
        let bytes = rows * ROW + messages * question.assumed.body;
        let gb = question.users * bytes * question.assumed.kept_days / GB * ROOM;
        let peak = question.users * rows / 86_400.0 * peak() * BURST;
        let instances = (gb / MOST_GB)
            .max(peak / ROWS_A_VCPU / MOST_VCPUS)
            .ceil()
            .max(1.0);
        let vcpus = (peak / ROWS_A_VCPU / instances).max(2.0);
        let gb = gb.max(20.0 * instances);
        let included = INCLUDED[usize::from(gb / instances >= STRIPED_GB)];
        Self {
            instances,
            vcpus: 2_f64.powf(vcpus.log2().ceil()),
            gb,
            iops: (peak * IO_A_ROW - included * instances).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::day::ASSUMED;

    fn with<T>(users: f64, ask: impl FnOnce(&Question<'_>) -> T) -> T {
        let (resources, prices) = (Resources::of_file().unwrap(), Prices::of_file().unwrap());
        ask(&Question {
            users,
            resources: &resources,
            prices: &prices,
            assumed: ASSUMED,
        })
    }

    #[test]
    fn nodes_follow_the_hours_and_are_never_fewer_than_planned() {
        let nodes = |users| with(users, |it| it.nodes().map(|count| count as u32));
        let few = nodes(1_000.0);
        assert_eq!(few, [2; 24]);
        let many = nodes(1e6);
        assert_eq!((many[19], many[3]), (35, 7));
    }

    #[test]
    fn ten_times_the_users_cost_less_than_ten_times_as_much() {
        let cost = |users| with(users, |it| it.cirrus().unwrap().total());
        assert!(cost(1e4) < 10.0 * cost(1e3));
        assert!(cost(1e6) > 5.0 * cost(1e5));
    }

    #[test]
    fn designs_differ_in_what_stores_only() {
        with(1e5, |it| {
            let bills = [it.cirrus(), it.items(), it.relational()].map(Result::unwrap);
            let rest = bills.map(|bill| bill.total() - bill.store);
            assert!(rest.windows(2).all(|it| (it[0] - it[1]).abs() < 1e-6));
        });
    }
}
