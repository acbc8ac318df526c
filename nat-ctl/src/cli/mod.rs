//! The commands and what each of them does.
//!
//! Invariant: text becomes a type while it is parsed; a command that runs has sound arguments.

mod config;
mod doctor;
mod explain;
mod ftp;
mod interrupt;
mod papers;
mod rules;
mod run;
mod state;
mod top;
mod watch;

use clap::{ArgAction, Args, Parser, Subcommand};
use nat_ctl::{
    error::{Exit, Failure},
    options::Instance,
    output::{Color, FlowFilter, Format, Printer},
};

use crate::End;

/// NAT gateway in eBPF, with FTP in every mode
#[derive(Debug, Parser)]
#[command(name = "nat-ctl", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Which gateway of this machine
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "NAT_CTL_INSTANCE",
        default_value = "default"
    )]
    instance: Instance,
    /// How to print
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Whether tables are coloured
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground
    Run(run::RunArgs),
    /// Remove everything that a gateway left behind
    Down,
    /// Lead ports of a public address to a host inside
    #[command(subcommand)]
    Forward(rules::ForwardCommand),
    /// Give a host inside a public address of its own
    #[command(subcommand)]
    OneToOne(rules::OneToOneCommand),
    /// Connections that are being translated
    #[command(subcommand)]
    Flows(FlowsCommand),
    /// Data connections that have been announced and not yet opened
    #[command(subcommand)]
    Expectations(ExpectationsCommand),
    /// Hosts inside, and how many connections each has opened
    #[command(subcommand)]
    Hosts(HostsCommand),
    /// FTP sessions
    #[command(subcommand)]
    Ftp(FtpCommand),
    /// Print lines of FTP that are rewritten, old and new, as they come
    Trace(ftp::TraceArgs),
    /// Print the flows, hosts or rules that move most, again and again until Ctrl-C
    Top(top::TopArgs),
    /// The gateway on one screen
    Status,
    /// Packets dropped, by reason
    #[command(args_conflicts_with_subcommands = true)]
    Drops {
        /// Print what is dropped as it happens, by looking again and again
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        every: watch::Every,
        #[command(subcommand)]
        command: Option<DropsCommand>,
    },
    /// The configuration file
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Everything that is measured, as Prometheus reads it
    Metrics,
    /// What would become of a packet, by which rule or flow, and what would change that
    Explain(explain::ExplainArgs),
    /// What would fight with the gateway, and what to do; exit status 1 if something is broken
    Doctor(doctor::DoctorArgs),
    /// Print what completes these commands in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual
    Man(papers::ManArgs),
}

#[derive(Debug, Subcommand)]
enum FlowsCommand {
    /// Print the flows that match every condition
    List(FlowFilter),
    /// Print flows that match as they begin, change their state and end, by looking again and again
    Watch {
        #[command(flatten)]
        filter: FlowFilter,
        #[command(flatten)]
        every: watch::Every,
    },
    /// Print how many flows match every condition
    Count(FlowFilter),
    /// End the flows that match every condition, and print how many they were
    #[command(visible_alias = "flush")]
    Delete(FlowFilter),
}

#[derive(Debug, Subcommand)]
enum ExpectationsCommand {
    /// Print the expectations
    List,
    /// Print expectations as they come and go, by looking again and again
    Watch(watch::Every),
}

#[derive(Debug, Subcommand)]
enum HostsCommand {
    /// Print the hosts that have flows, most flows first
    List,
}

#[derive(Debug, Subcommand)]
enum FtpCommand {
    /// Print the control connections that are followed
    Sessions,
    /// Print the transfers under way and the last thousand that have ended
    Transfers,
    /// Print the last hundred lines that opened nothing, and why
    Refusals {
        /// Print how many there were of each reason instead
        #[arg(long)]
        count: bool,
    },
    /// Print what happens in sessions, as it happens, until Ctrl-C
    Watch,
}

#[derive(Debug, Subcommand)]
enum DropsCommand {
    /// Say what a reason means and what to do about it
    Explain {
        /// Name of the reason, as 'nat-ctl drops' prints it
        reason: String,
    },
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> Result<(), End> {
        let Self { global, command } = self;
        let printer = Printer::new(global.output, global.color);
        let instance = &global.instance;
        match command {
            Command::Run(args) => run::run(args, global.instance, global.verbose)?,
            Command::Down => run::down(instance)?,
            Command::Forward(command) => rules::forward(command, instance, &printer)?,
            Command::OneToOne(command) => rules::one_to_one(command, instance, &printer)?,
            Command::Flows(FlowsCommand::List(filter)) => {
                state::flows(instance, &filter, &printer)?
            }
            Command::Flows(FlowsCommand::Watch { filter, every }) => {
                watch::flows(instance, &filter, every, &printer)?;
            }
            Command::Flows(FlowsCommand::Count(filter)) => {
                state::count_flows(instance, &filter, &printer)?;
            }
            Command::Flows(FlowsCommand::Delete(filter)) => {
                state::delete_flows(instance, filter, &printer)?;
            }
            Command::Expectations(ExpectationsCommand::List) => {
                state::expectations(instance, &printer)?;
            }
            Command::Hosts(HostsCommand::List) => state::hosts(instance, &printer)?,
            Command::Ftp(command) => ftp::ftp(&command, instance, &printer)?,
            Command::Trace(args) => ftp::trace(&args, instance, &printer)?,
            Command::Expectations(ExpectationsCommand::Watch(every)) => {
                watch::expectations(instance, every, &printer)?;
            }
            Command::Top(args) => top::top(&args, instance, &printer)?,
            Command::Status => state::status(instance, &printer)?,
            Command::Drops { command: None, watch: true, every } => {
                watch::drops(instance, every, &printer)?;
            }
            Command::Drops { command: None, .. } => state::drops(instance, &printer)?,
            Command::Drops { command: Some(DropsCommand::Explain { reason }), .. } => {
                state::explain(instance, &reason, &printer)?;
            }
            Command::Completions { shell } => papers::completions(shell)?,
            Command::Man(args) => papers::man(args)?,
            Command::Metrics => state::metrics(instance, &printer)?,
            Command::Explain(args) => explain::explain(args, instance, &printer)?,
            Command::Doctor(args) => {
                if !doctor::doctor(args, instance, &printer)? {
                    return Err(End::Told(Exit::Error));
                }
            }
            Command::Config(command) => config::config(command, instance, &printer)?,
        }
        Ok(())
    }
}

/// stdout could not be written.
fn written(error: std::io::Error) -> Failure {
    Failure::new(Exit::Error, format_args!("write the output: {error}"))
}
