//! What commands print: views with the JSON fields that scripts rely on, and tables for people.
//!
//! Invariant: `table`, `json` and `jsonl` are made from the same view, and every JSON object has
//! `"version": 1` in front. A closed pipe ends the output without an error.

mod doctor_blocks;
mod explain_view;
mod filter;
mod flow_json;
mod flow_line;
mod flow_list;
mod ftp;
mod metrics;
mod plan;
mod printer;
mod rule_table;
mod source;
mod status_table;
mod tables;
#[cfg(test)]
mod tests;
mod top;
mod units;
mod view;
mod watch;

pub use explain_view::{ExplainView, PacketView, Question, VerdictView};
pub use filter::FlowFilter;
pub use flow_line::FlowLine;
pub use flow_list::Each;
pub use ftp::{
    FtpDirection, FtpEventKind, FtpEventView, FtpEventsView, FtpRefusalView, FtpRefusalsView,
    FtpResult, FtpSide, FtpTransferView,
};
pub use metrics::{CONTENT_TYPE as METRICS_TYPE, MetricsView};
pub use plan::{Change, PlanView, RuleChange};
pub use printer::{Color, Format, Printer};
pub use source::{StateSource, unexpected};
pub use top::{By, Mover, Top};
pub use view::{
    DropsView, End, ExpectationView, FlowView, ForwardView, FtpMode, FtpSessionView, HostView,
    InboundView, InterfaceMode, InterfaceView, OneToOneView, OverloadView, PacketsView, PortsView,
    Role, RuleView, StatusView, Usage,
};
pub use watch::{DropEvent, Event, Happening, Reader, Watch, Watched};
