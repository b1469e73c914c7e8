//! Serves a mock as a TOML text on the command line says, for a number of seconds, and says what it did:
//! `cargo run --release --example mock -- 'openai = { ttft = { fixed = 0.05 } }' 30`.

use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let config = toml::from_str(&arguments.next().unwrap_or_default())?;
    let seconds: f64 = arguments.next().as_deref().unwrap_or("30").parse()?;
    let mock = gatewright_mock::start(config)?;
    tracing::info!(address = %mock.address(), "listening");
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let summary = mock.stop()?;
    let mut out = std::io::stdout().lock();
    std::io::Write::write_all(&mut out, serde_json::to_string_pretty(&summary)?.as_bytes())?;
    Ok(())
}
