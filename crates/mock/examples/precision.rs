//! Measures how much time a mock server adds to what it was told, from outside, over one connection after the other:
//! `precision ADDRESS TOLD_MILLIS COUNT`. The server must be an HTTP one with that fixed latency.
//! The answer's round trip without latency is a part of it, so measure a server with none beside it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, told, count] = &arguments[..] else {
        return Err("usage: precision ADDRESS TOLD_MILLIS COUNT".into());
    };
    let told = Duration::from_secs_f64(told.parse::<f64>()? / 1e3);
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 65_536];
    let mut added = Vec::new();
    for _ in 0..count.parse()? {
        let start = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: mock\r\n\r\n")?;
        if stream.read(&mut buffer)? == 0 {
            return Err("the server closed the connection".into());
        }
        let elapsed = start.elapsed();
        added.push(elapsed.as_secs_f64() * 1e6 - told.as_secs_f64() * 1e6);
        std::thread::sleep(Duration::from_millis(1));
    }
    added.sort_by(f64::total_cmp);
    let at = |share: f64| added[((added.len() - 1) as f64 * share) as usize];
    let (p50, p90, p99) = (at(0.5), at(0.9), at(0.99));
    let line = format!(
        "added, us: min {:.0} p50 {p50:.0} p90 {p90:.0} p99 {p99:.0} max {:.0}\n",
        at(0.0),
        at(1.0)
    );
    Ok(std::io::stdout().write_all(line.as_bytes())?)
}
