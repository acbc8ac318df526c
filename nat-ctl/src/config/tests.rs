//! The file as people write it.

use super::*;
use crate::rules::RuleKind;

fn parse(text: &str) -> Config {
    Config::parse(text).expect("a sound file")
}

fn mistake(text: &str) -> (usize, usize, String) {
    let mistake = Config::parse(text).expect_err("a mistake");
    (mistake.line, mistake.column, mistake.why)
}

#[test]
fn the_documented_file_says_what_the_defaults_say() {
    let text = r#"
[gateway]
wan = ["eth0"]
lan = ["eth1"]
mode = "auto"

[masquerade]
ports = "auto"
mapping = "endpoint-independent"
filtering = "address-and-port-dependent"
clamp_mss = "auto"

[[forward]]
name = "ftp"
protocol = "tcp"
public = "203.0.113.10:21"
to = "192.168.1.10:21"
allow = ["0.0.0.0/0"]
alg = "ftp"

[[one_to_one]]
name = "mail"
public = "203.0.113.11"
to = "192.168.1.11"
inbound = ["tcp:25", "icmp", "tcp:20-21@198.51.100.0/24"]

[ftp]
control_ports = [21]
foreign_address = "refuse"
strict = false

[timeouts]
tcp_established = "2h4m"
tcp_transitory = "4m"
udp = "5m"
icmp = "1m"
expectation = "30s"

[limits]
flows = 1048576
flows_per_host = 65536
ports_per_host = 0
expectations = 65536
"#;
    let config = parse(text);
    let rules = config.rules();
    assert_eq!(
        rules.iter().map(|rule| (rule.name().as_str(), rule.kind())).collect::<Vec<_>>(),
        [("ftp", RuleKind::Forward), ("mail", RuleKind::OneToOne)]
    );
    let gateway = Gateway {
        wan: vec!["eth0".into()],
        lan: vec!["eth1".into()],
        mode: Mode::Auto,
        ..Gateway::default()
    };
    let defaults = Config {
        gateway,
        forward: config.forward.clone(),
        one_to_one: config.one_to_one.clone(),
        ..Config::default()
    };
    assert_eq!(config, defaults);
    assert_eq!(parse(""), Config::default());
}

#[test]
fn networks_of_ipv4_are_inside_where_one_interface_is_on_both_sides() {
    let own = parse("[gateway]\ninside = [\"10.8.0.0/16\"]\n").gateway.inside;
    assert_eq!(own, ["10.8.0.0/16".parse().unwrap()]);
    let private = Config::default().gateway.inside;
    let is_inside = |address: [u8; 4]| {
        private.iter().any(|network| network.contains(std::net::Ipv4Addr::from(address)))
    };
    for address in [[10, 0, 0, 1], [172, 31, 255, 255], [192, 168, 0, 1], [100, 64, 0, 0]] {
        assert!(is_inside(address), "{address:?}");
    }
    for address in [[9, 255, 255, 255], [172, 32, 0, 0], [192, 169, 0, 0], [100, 128, 0, 0]] {
        assert!(!is_inside(address), "{address:?}");
    }
    for (networks, wanted) in [("\"2001:db8::/32\"", "IPv6 to the kernel"), ("", "no network")] {
        let (line, _, why) = mistake(&format!("[gateway]\ninside = [{networks}]\n"));
        assert!(line == 2 && why.contains(wanted), "{line}: {why}");
    }
}

#[test]
fn networks_of_ipv4_may_be_exempt_from_nat() {
    let config = parse("[masquerade]\nexempt = [\"10.8.0.0/16\", \"192.0.2.7\"]\n");
    let said: Vec<String> = config.masquerade.exempt.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["10.8.0.0/16", "192.0.2.7/32"]);
    assert_eq!(Config::parse(&config.text().expect("text")).expect("a sound file"), config);
    let (line, _, why) = mistake("[masquerade]\nexempt = [\"2001:db8::/32\"]\n");
    assert_eq!(line, 2);
    assert!(why.contains("nothing of IPv6 is translated"), "{why}");
}

#[test]
fn hosts_may_be_shared_out_among_several_public_addresses() {
    let config = parse(
        "[masquerade]\naddresses = [\"203.0.113.20\", \"203.0.113.9 - 203.0.113.10\", \
         \"198.51.100.4/30\"]\n",
    );
    let said: Vec<String> = config.masquerade.addresses.iter().map(ToString::to_string).collect();
    let last = ["198.51.100.4", "198.51.100.5", "198.51.100.6", "198.51.100.7"];
    assert_eq!(said[..3], ["203.0.113.20", "203.0.113.9", "203.0.113.10"]);
    assert_eq!(said[3..], last);
    assert_eq!(Config::parse(&config.text().expect("text")).expect("a sound file"), config);
    for (named, wanted) in [
        ("203.0.113.0/29\", \"203.0.113.20", "8 are the most"),
        ("0.0.0.0-255.255.255.255", "the IPv4 address of a host"),
        ("203.0.113.0/28", "8 are the most"),
        ("203.0.113.1\", \"203.0.113.0/30", "203.0.113.1 is named twice"),
        ("203.0.113.9-203.0.113.8", "ends before it begins"),
        ("203.0.113.9-", "not an address"),
        ("wan0", "not an address"),
        ("224.0.0.1", "the IPv4 address of a host"),
    ] {
        let (line, _, why) = mistake(&format!("[masquerade]\naddresses = [\"{named}\"]\n"));
        assert_eq!(line, 2);
        assert!(why.contains(wanted), "{named}: {why}");
    }
    let (line, _, why) = mistake(
        "[masquerade]\naddresses = [\"203.0.113.9\"]\n[[one_to_one]]\nname = \"mail\"\n\
         public = \"203.0.113.9\"\nto = \"10.0.0.5\"\n",
    );
    assert_eq!(line, 2);
    assert!(why.contains("one-to-one 'mail' has 203.0.113.9 for itself"), "{why}");
}

#[test]
fn the_dashboards_names_are_understood() {
    let ours = parse(
        r#"
[[forward]]
name = "web"
protocol = "tcp"
public = "203.0.113.10:8000-8010"
to = "192.168.1.10:9000-9010"
allow = ["any"]
[[one_to_one]]
name = "mail"
public = "203.0.113.11"
to = "192.168.1.11"
inbound = ["tcp:25@198.51.100.0/24", "tcp:587@198.51.100.0/24", "icmp"]
"#,
    );
    let theirs = parse(
        r#"
[[forward]]
name = "web"
protocol = "tcp"
public = "203.0.113.10"
publicPort = "8000-8010"
lanIp = "192.168.1.10"
localPort = "9000-9010"
allowedIps = ["any"]
[[one_to_one]]
name = "mail"
publicIp = "203.0.113.11"
lanIp = "192.168.1.11"
allowedInbound = [
  { protocol = "tcp", destinationPorts = ["25", 587], allowedIps = ["198.51.100.0/24"] },
  { protocol = "icmp", allowedIps = ["any"] },
]
"#,
    );
    assert_eq!(theirs, ours);
}

#[test]
fn a_mistake_is_shown_with_its_place() {
    let (line, column, why) = mistake("[gateway]\nwan = [\"eth0\"]\nlna = []\n");
    assert_eq!((line, column), (3, 1));
    assert!(why.contains("unknown field `lna`") && why.contains("`lan`"), "{why}");

    let (line, _, why) = mistake("[timeouts]\nudp = \"5x\"\n");
    assert_eq!(line, 2);
    assert!(why.contains("'5x' is not a duration"), "{why}");

    let (line, _, why) = mistake("[[forward]]\nname = \"a\"\nprotocol = \"tcp\"\npublic = 5\n");
    assert_eq!(line, 4, "{why}");

    let text = "[[forward]]\nname = \"a\"\nprotocol = \"tcp\"\npublic = \"1.2.3.999:4\"\nto = \"10.0.0.1\"\n";
    let (line, column, why) = mistake(text);
    assert_eq!((line, column), (4, 10), "{why}");
    assert!(why.contains("'1.2.3.999'"), "{why}");
}

#[test]
fn what_is_no_choice_is_refused() {
    let (_, _, why) = mistake("[masquerade]\nmapping = \"sideways\"\n");
    assert!(why.contains("not a choice"), "{why}");
}

#[test]
fn mapping_and_filtering_are_chosen_by_their_words() {
    let chosen = parse(
        "[masquerade]\nmapping = \"address-and-port-dependent\"\n\
         filtering = \"address-and-port-dependent\"\n",
    );
    assert_eq!(chosen.masquerade.mapping, Mapping::AddressAndPortDependent);
    assert_eq!(chosen.masquerade.filtering, Filtering::AddressAndPortDependent);
    let chosen = parse("[masquerade]\nfiltering = \"endpoint-independent\"\n");
    assert_eq!(chosen.masquerade.mapping, Mapping::EndpointIndependent);
    assert_eq!(chosen.masquerade.filtering, Filtering::EndpointIndependent);
    let chosen = parse("[masquerade]\nfiltering = \"address-dependent\"\n");
    assert_eq!(chosen.masquerade.filtering, Filtering::AddressDependent);
    let (_, _, why) = mistake("[masquerade]\nfiltering = \"sideways\"\n");
    assert!(why.contains("not a choice"), "{why}");
    for filtering in ["endpoint-independent", "address-dependent"] {
        let (line, _, why) = mistake(&format!(
            "[masquerade]\nmapping = \"address-and-port-dependent\"\nfiltering = \"{filtering}\"\n"
        ));
        assert!(line == 3 && why.contains("needs mapping"), "{line}: {why}");
    }
}

#[test]
fn pools_are_sorted_ranges_above_the_system_ports() {
    let pool = |text: &str| Config::parse(&format!("[masquerade]\nports = \"{text}\"\n"));
    let ranges = |text: &str| match pool(text).expect("a pool").masquerade.ports {
        Pool::Auto => vec![],
        Pool::Ranges(ranges) => ranges.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(ranges("auto"), Vec::<String>::new());
    assert_eq!(ranges("40000-49999, 20000-29999"), ["20000-29999", "40000-49999"]);
    for text in ["80-2000", "2000-3000,2500-4000", "", "a", "3000-2000"] {
        assert!(pool(text).is_err(), "{text}");
    }
    let many: Vec<_> =
        (0..=nat_common::port::POOL_RANGES).map(|n| (2000 + 10 * n).to_string()).collect();
    let why = pool(&many.join(",")).expect_err("more ranges than the data plane has room for").why;
    assert!(why.contains("ranges"), "{why}");
}

#[test]
fn lifetimes_and_limits_have_bounds() {
    for text in ["udp = \"0s\"", "udp = \"30days\"", "udp = 5", "tcp = \"1h\""] {
        mistake(&format!("[timeouts]\n{text}\n"));
    }
    for text in [
        "flows = 0",
        "flows = -1",
        "expectations = 4294967296",
        "flows_per_host = -1",
        "ports_per_host = -1",
    ] {
        mistake(&format!("[limits]\n{text}\n"));
    }
    mistake("[ftp]\ncontrol_ports = [0]\n");
    mistake("[ftp]\ncontrol_ports = [1, 2, 3, 4, 5, 6, 7, 8, 9]\n");
}

#[test]
fn denied_commands_are_words_in_capitals_and_belong_to_strict_mode() {
    let config = Config::parse("[ftp]\nstrict = true\ndenied_commands = [\"site\", \"DELE\"]\n");
    let ftp = config.expect("a configuration").ftp;
    assert!(ftp.strict);
    assert_eq!(ftp.denied_commands, ["SITE", "DELE"]);
    let (line, _, why) = mistake("[ftp]\nstrict = true\ndenied_commands = [\"SITE EXEC\"]\n");
    assert_eq!(line, 3);
    assert!(why.contains("'SITE EXEC' is no command"), "{why}");
    let (line, _, why) = mistake("[ftp]\ndenied_commands = [\"SITE\"]\n");
    assert_eq!(line, 2);
    assert!(why.contains("strict = true"), "{why}");
    let rule = "[[one_to_one]]\nname = \"a\"\npublic = \"203.0.113.11\"\nto = \"10.0.1.2\"\n";
    let by_rule = format!("[ftp]\ndenied_commands = [\"SITE\"]\n\n{rule}strict = true\n");
    assert!(Config::parse(&by_rule).is_ok());
    assert!(Config::parse(&by_rule.replace("true", "false")).is_err());
}

#[test]
fn more_pinholes_than_the_engine_remembers_are_refused() {
    let (line, _, why) = mistake("[limits]\npinholes_per_session = 9\n");
    assert_eq!(line, 2);
    assert!(why.contains("at most 8"), "{why}");
    assert!(mistake("[limits]\npinholes_per_session = 0\n").2.contains("above 0"));
}

#[test]
fn other_addresses_of_a_server_are_told_apart_and_few() {
    let text = "[ftp.data_addresses]\n\"198.51.100.7\" = [\"198.51.100.8\"]\n";
    let ftp = Config::parse(text).expect("a configuration").ftp;
    let server = IpAddr::from([198, 51, 100, 7]);
    assert_eq!(ftp.data_addresses[&server], [IpAddr::from([198, 51, 100, 8])]);
    for (others, wanted) in [
        ("\"198.51.100.7\"", "is there twice"),
        ("\"10.0.0.1\", \"10.0.0.1\"", "is there twice"),
        ("\"1.0.0.1\", \"1.0.0.2\", \"1.0.0.3\", \"1.0.0.4\", \"1.0.0.5\"", "at most 4"),
    ] {
        let (_, _, why) =
            mistake(&format!("[ftp.data_addresses]\n\"198.51.100.7\" = [{others}]\n"));
        assert!(why.contains(wanted), "{why}");
    }
}

#[test]
fn an_mss_is_clamped_to_the_path_unless_it_says_otherwise() {
    let clamped = |value: &str| parse(&format!("[masquerade]\nclamp_mss = {value}\n"));
    for (value, wanted) in
        [("\"auto\"", u16::MAX), ("\"off\"", 0), ("28", 28), ("1452", 1452), ("65535", u16::MAX)]
    {
        assert_eq!(u16::from(clamped(value).masquerade.clamp_mss), wanted, "{value}");
    }
    assert_eq!(parse("").masquerade.clamp_mss, ClampMss::Auto);
    for value in ["27", "65536", "-1", "true", "\"on\"", "\"1452\""] {
        let (line, _, why) = mistake(&format!("[masquerade]\nclamp_mss = {value}\n"));
        assert_eq!(line, 2);
        assert!(why.contains("clamp_mss"), "{why}");
    }
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let all = r#"
[gateway]
wan = ["eth0"]
lan = ["eth1"]
mode = "tc"
add_addresses = false

[masquerade]
ports = "20000-29999,40000"
mapping = "address-and-port-dependent"
clamp_mss = 1400

[[forward]]
name = "ftp"
protocol = "tcp"
public = "203.0.113.10:21"
to = "192.168.1.10:21"
allow = ["198.51.100.0/24"]
passive_range = "50000-50100"
uplink = "eth2"

[[one_to_one]]
name = "mail"
public = "203.0.113.11"
to = "192.168.1.11"
inbound = ["tcp:25", "icmp", "tcp:20-21@198.51.100.0/24"]

[ipv6]
enabled = false
echo = true
unique_local = true

[ftp]
control_ports = [21, 2121]
foreign_address = "pass"
strict = true
denied_commands = ["SITE"]

[ftp.data_addresses]
"198.51.100.7" = ["198.51.100.8"]

[timeouts]
tcp_established = "2h4m"
udp = "1m 30s"

[limits]
flows = 65536
"#;
    for text in
        ["", all, "[masquerade]\nclamp_mss = \"off\"\nfiltering = \"endpoint-independent\"\n"]
    {
        let config = parse(text);
        let shown = config.text().expect("text");
        assert_eq!(parse(&shown), config, "{shown}");
        assert!(shown.contains("tcp_established = \"2h4m\""), "{shown}");
    }
}

#[test]
fn prefixes_are_read_written_and_held_against_each_other_and_the_rules() {
    let pair = |wan: &str, public: &str| {
        format!("[[prefix]]\nwan = \"{wan}\"\ninside = \"fd00:1::/48\"\npublic = \"{public}\"\n")
    };
    let one = pair("eth0", "2001:db8:1::/48");
    let config = parse(&format!("{one}{}", pair("eth1", "2001:db8:2::/48")));
    assert_eq!(config.prefix.len(), 2);
    assert_eq!(parse(&config.text().expect("a file")), config);

    let (line, _, why) = mistake(&format!("{one}{}", pair("eth0", "2001:db8:2::/48")));
    assert_eq!(line, 1);
    assert!(why.contains("two translations"), "{why}");
    let (_, _, why) = mistake(&format!("{one}[ipv6]\nenabled = false\n"));
    assert!(why.contains("where IPv6 is filtered"), "{why}");
    let (line, _, why) = mistake(&pair("eth0", "2001:db8:1::/64"));
    assert_eq!(line, 1, "{why}");
    assert!(why.contains("differ in length"), "{why}");

    let forward = "[[forward]]\nname = \"web\"\nprotocol = \"tcp\"\n\
                   public = \"[2001:db8:9::1]:80\"\nto = \"[fd00:1::1]:80\"\n";
    let path = Path::new("nat.toml");
    let refused = Config::of_text(path, &format!("{forward}{one}")).expect_err("another host");
    assert!(refused.to_string().contains("known outside as 2001:db8:1:"), "{refused}");
}
