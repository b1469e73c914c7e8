//! `gatewright._hub`: the embedded hub of `gatewright-serve`, as Python's asyncio needs it, and simulations.
//!
//! A [`Hub`] runs on a thread of its own that never takes Python's lock. Each event loop has a [`Mailbox`]: answers
//! are put into it, and an eventfd that the loop watches tells that there are some. So answers that come together
//! wake the loop once, and cost it one call.

mod columns;
mod hub;
mod log;
mod mailbox;
mod policies;
mod simulation;

use pyo3::prelude::*;

#[pymodule]
fn _hub(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<columns::Table>()?;
    module.add_class::<hub::Hub>()?;
    module.add_class::<log::Log>()?;
    module.add_class::<mailbox::Mailbox>()?;
    module.add_class::<policies::CallView>()?;
    module.add_class::<policies::NodeView>()?;
    module.add_class::<policies::ScalerView>()?;
    module.add_class::<policies::WantView>()?;
    module.add_function(wrap_pyfunction!(simulation::simulate, module)?)
}
