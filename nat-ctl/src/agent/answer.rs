//! Answers that take a look at whole tables, away from the event loop.
//!
//! Invariant: a table of a million flows never holds up a segment: whoever reads one does so on a
//! thread of its own, with handles of its own.

use std::{collections::HashMap, ops::ControlFlow};

use nat_common::reason::Reason;

use crate::{
    api::{Gateway, Request, Response},
    error::Failure,
    options::Instance,
    output::{FlowFilter, FtpSessionView, OverloadView, PlanView, Question, StatusView},
    plane::Inspector,
};

/// The answer to one request.
#[derive(Debug)]
pub enum Answer {
    /// It is there.
    Ready(Response),
    /// It has to be read.
    Read(Instance, Job),
}

/// What has to be read, or done to whole tables.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// One screen.
    Status {
        /// Sessions that are open.
        ftp_sessions: u64,
        /// Why new flows are refused.
        overload: Vec<OverloadView>,
    },
    /// Flows that match.
    Flows(FlowFilter),
    /// The end of flows that match; how many is the answer.
    DeleteFlows(FlowFilter),
    /// The end of the flows of a rule that is gone.
    EndRule(FlowFilter),
    /// Expectations.
    Expectations,
    /// Inside hosts.
    Hosts,
    /// Drops by reason.
    Drops,
    /// Everything that is measured.
    Metrics {
        /// Sessions that are open.
        ftp_sessions: u64,
    },
    /// What would become of a packet.
    Explain(Question),
    /// What a configuration would change, which lacks the flows by its rules.
    Plan(PlanView),
    /// FTP sessions, which lack the bytes of their data connections.
    FtpSessions(Vec<FtpSessionView>),
}

impl Gateway for Answer {
    /// Gives the answer to the request that this was made for.
    fn handle(&mut self, _request: Request) -> Response {
        match self {
            Self::Ready(response) => response.clone(),
            Self::Read(instance, job) => Response::from(read(instance, job)),
        }
    }
}

fn read(instance: &Instance, job: &Job) -> Result<Response, Failure> {
    let mut inspector = Inspector::open(instance)?;
    Ok(match job {
        Job::Status { ftp_sessions, overload } => {
            let status = inspector.status(*ftp_sessions)?;
            let overload = named(&inspector, overload)?;
            Response::Status(Box::new(StatusView { overload, ..status }))
        }
        Job::Flows(filter) => Response::Flows(inspector.flows(filter)?),
        Job::DeleteFlows(filter) => Response::Count(inspector.delete_flows(filter)?),
        Job::EndRule(filter) => {
            inspector.delete_flows(filter)?;
            Response::Done
        }
        Job::Hosts => Response::Hosts(inspector.hosts()?),
        Job::Expectations => Response::Expectations(inspector.expectations()?),
        Job::Metrics { ftp_sessions } => {
            Response::Metrics(Box::new(inspector.metrics(*ftp_sessions)?))
        }
        Job::Explain(question) => Response::Explain(Box::new(inspector.explain(question)?)),
        Job::Drops => Response::Drops(inspector.drops_view()?),
        Job::Plan(plan) => {
            let mut plan = plan.clone();
            for change in &mut plan.rules {
                let filter = FlowFilter::of_rule(&change.name);
                inspector.each_flow(&filter, &mut |_| {
                    change.flows += 1;
                    ControlFlow::Continue(())
                })?;
            }
            Response::Plan(plan)
        }
        Job::FtpSessions(sessions) => {
            let mut sessions = sessions.clone();
            let bytes = data_bytes(&inspector)?;
            for session in &mut sessions {
                session.bytes = bytes.get(&session.id).copied().unwrap_or_default();
            }
            Response::FtpSessions(sessions)
        }
    })
}

/// The states, with the hosts that are at their limit now.
fn named(inspector: &Inspector, states: &[OverloadView]) -> Result<Vec<OverloadView>, Failure> {
    let mut states = states.to_vec();
    if let Some(state) = states.iter_mut().find(|it| it.state == Reason::HostLimit.name()) {
        let hosts = inspector.hosts()?;
        let full = hosts.iter().filter(|host| host.is_at_limit()).map(|host| host.host);
        state.hosts = full.take(OverloadView::HOSTS).collect();
    }
    Ok(states)
}

/// Bytes over the data connections of each session.
fn data_bytes(inspector: &Inspector) -> Result<HashMap<u64, u64>, Failure> {
    let mut bytes = HashMap::new();
    inspector.each_flow(&FlowFilter::default(), &mut |flow| {
        if let Some(session) = flow.related_to {
            *bytes.entry(session).or_insert(0) += flow.original.bytes + flow.reply.bytes;
        }
        ControlFlow::Continue(())
    })?;
    Ok(bytes)
}
