use gatewright_serve::*;
fn main() {
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let file = std::env::args().nth(1).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let system = gatewright_control::config::SystemFile::parse(&text, &[]).unwrap();
    rt.block_on(async move {
        let shutdown = Shutdown::on_signals().unwrap();
        let options = Options {
            python: std::env::var_os("GATEWRIGHT_PYTHON").unwrap().into(),
            records: std::env::var_os("RECORDS").map(Into::into),
            ..Options::default()
        };
        run(system, std::path::Path::new(&file).parent().unwrap().to_owned(), options, shutdown)
            .await
            .unwrap();
    });
}
