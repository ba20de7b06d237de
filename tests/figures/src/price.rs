//! AWS's list prices, from `prices.json`.

use serde_json::Value;

const PRICES: &str = include_str!("../prices.json");

/// One price.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    name: String,
    /// Of what, in words.
    pub what: String,
    /// Dollars.
    pub dollars: f64,
    /// For so many.
    pub per: f64,
    /// Of these.
    pub unit: String,
    /// AWS's own page, which could not be read when the file was made.
    pub page: String,
    /// When the source below had it: a month or a day.
    pub seen: Option<String>,
    /// What it was compared with.
    pub by: Option<String>,
}

/// All prices.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    /// The region that they hold for.
    pub region: String,
    all: Vec<Price>,
}

impl Prices {
    /// Those of the file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn of_file() -> Result<Self, String> {
        let file: Value = serde_json::from_str(PRICES).map_err(|e| e.to_string())?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let price = |row: &Value| {
            Some(Price {
                name: text(&row["name"])?,
                what: text(&row["what"])?,
                dollars: row["dollars"].as_f64()?,
                per: row["per"].as_f64()?,
                unit: text(&row["unit"])?,
                page: text(&row["page"])?,
                seen: text(&row["seen"]),
                by: text(&row["by"]),
            })
        };
        let rows = file["prices"].as_array().into_iter().flatten();
        let rows = rows.map(|row| price(row).ok_or(format!("not a price: {row}")));
        Ok(Self {
            region: text(&file["region"]).ok_or("no region")?,
            all: rows.collect::<Result<_, _>>()?,
        })
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Price> {
        self.all.iter()
    }

    /// The price of one of that name, dollars.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(&self, name: &str) -> Result<f64, String> {
        let found = self.all.iter().find(|price| price.name == name);
        let found = found.ok_or(format!("prices.json has no `{name}`"))?;
        Ok(found.dollars / found.per)
    }
}
