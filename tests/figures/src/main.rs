//! The bill of Cirrus for any number of users a day, beside the other designs:
//! `cirrus-figures USERS`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

use std::process::ExitCode;

use cirrus_figures::cost::Question;
use cirrus_figures::day::ASSUMED;
use cirrus_figures::plan::Resources;
use cirrus_figures::price::Prices;

fn main() -> ExitCode {
    let users = std::env::args().nth(1).and_then(|it| it.parse().ok());
    let Some(users) = users.filter(|it: &f64| it.is_finite() && *it >= 0.0) else {
        eprintln!("usage: cirrus-figures USERS");
        return ExitCode::from(2);
    };
    match print(users) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cirrus-figures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(users: f64) -> Result<(), String> {
    let (resources, prices) = (Resources::of_file()?, Prices::of_file()?);
    let question = Question {
        users,
        resources: &resources,
        prices: &prices,
        assumed: ASSUMED,
    };
    println!(
        "Dollars a month for {users} users a day, {}:",
        prices.region
    );
    for (what, dollars) in question.cirrus()?.lines {
        println!("{dollars:>14.2}  {what}");
    }
    for (design, bill) in [
        ("Cirrus", question.cirrus()?),
        ("an item for each message", question.items()?),
        ("a relational database", question.relational()?),
    ] {
        let (total, store) = (bill.total(), bill.store);
        println!("{total:>14.2}  {design}, of which what stores is {store:.2}");
    }
    Ok(())
}
