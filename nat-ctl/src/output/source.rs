//! Where views come from: the agent's answers, or the pinned maps where no agent is needed.
//!
//! Invariant: both sources give the same view of the same gateway.

use std::ops::ControlFlow;

use super::{
    DropsView, Each, ExpectationView, ExplainView, FlowFilter, HostView, Question, StatusView,
};
use crate::{
    api::{Client, Request, Response},
    error::{Exit, Failure},
};

/// Reads the state of a gateway.
pub trait StateSource {
    /// Hands over the flows that match, as they are read.
    ///
    /// # Errors
    /// Where the source can't be read; the same goes for all of these.
    fn flows(&mut self, filter: &FlowFilter, each: Each<'_>) -> Result<(), Failure>;

    /// How many flows match.
    ///
    /// # Errors
    /// See [`StateSource::flows`].
    fn count_flows(&mut self, filter: &FlowFilter) -> Result<u64, Failure> {
        let mut count = 0;
        self.flows(filter, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Every expectation.
    ///
    /// # Errors
    /// See [`StateSource::flows`].
    fn expectations(&mut self) -> Result<Vec<ExpectationView>, Failure>;

    /// Inside hosts and the flows that each has opened, most flows first.
    ///
    /// # Errors
    /// See [`StateSource::flows`].
    fn hosts(&mut self) -> Result<Vec<HostView>, Failure>;

    /// Drops by reason.
    ///
    /// # Errors
    /// See [`StateSource::flows`].
    fn drops(&mut self) -> Result<DropsView, Failure>;

    /// What would become of a packet.
    ///
    /// # Errors
    /// See [`StateSource::flows`]; and where it comes in by no interface of the gateway.
    fn explain(&mut self, question: &Question) -> Result<ExplainView, Failure>;
}

impl StateSource for Client {
    fn flows(&mut self, filter: &FlowFilter, each: Each<'_>) -> Result<(), Failure> {
        match self.call(&Request::Flows { filter: filter.clone() })? {
            Response::Flows(flows) => {
                // Nobody may want more than the first ones.
                let _ = flows.iter().try_for_each(|flow| each(&flow.line()));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    fn expectations(&mut self) -> Result<Vec<ExpectationView>, Failure> {
        match self.call(&Request::Expectations)? {
            Response::Expectations(expectations) => Ok(expectations),
            other => Err(unexpected(&other)),
        }
    }

    fn hosts(&mut self) -> Result<Vec<HostView>, Failure> {
        match self.call(&Request::Hosts)? {
            Response::Hosts(hosts) => Ok(hosts),
            other => Err(unexpected(&other)),
        }
    }

    fn drops(&mut self) -> Result<DropsView, Failure> {
        match self.call(&Request::Drops)? {
            Response::Drops(drops) => Ok(drops),
            other => Err(unexpected(&other)),
        }
    }

    fn explain(&mut self, question: &Question) -> Result<ExplainView, Failure> {
        match self.call(&Request::Explain { question: question.clone() })? {
            Response::Explain(view) => Ok(*view),
            other => Err(unexpected(&other)),
        }
    }
}

impl Client {
    /// How the gateway is.
    ///
    /// # Errors
    /// Where the agent can't be asked.
    pub fn status(&mut self) -> Result<StatusView, Failure> {
        match self.call(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }
}

/// The agent answered another question.
pub fn unexpected(response: &Response) -> Failure {
    let name = serde_json::to_value(response).ok();
    let name = name.as_ref().and_then(|value| value["response"].as_str()).unwrap_or("?");
    Failure::new(
        Exit::Error,
        format_args!(
            "talk to the agent: it answered '{name}', which is not what was asked: is it another \
             version than this command?"
        ),
    )
}
