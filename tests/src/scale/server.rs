//! A small FTP server for thousands of sessions at once, on one thread.
//!
//! Invariant: it dials before it answers 200, takes a PORT only in its plainest form and with the one
//! address that it is told to expect, and sends back the name that it is asked for: so a byte that was
//! changed anywhere is an error at the client.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// For a data connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the next file goes.
enum Data {
    Dialled(TcpStream),
    Awaited(TcpListener),
}

/// Serves whoever comes; PORT has to name `client`.
pub async fn serve(listener: TcpListener, client: Ipv4Addr) {
    loop {
        // A connection that is gone before it was taken is nobody's.
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            // Its client sees the end of the connection, and says what it missed.
            let _ = session(stream, client).await;
        });
    }
}

async fn session(stream: TcpStream, client: Ipv4Addr) -> Result<()> {
    stream.set_nodelay(true).context("turn Nagle off")?;
    let std::net::SocketAddr::V4(own) = stream.local_addr().context("ask for the own address")?
    else {
        bail!("not IPv4")
    };
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut data = None;
    write.write_all(b"220 here\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let (word, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = match word {
            "USER" => "230 welcome\r\n".to_owned(),
            "NOOP" => "200 here\r\n".to_owned(),
            "PASV" => {
                let listener = TcpListener::bind(SocketAddrV4::new(*own.ip(), 0)).await?;
                let at = SocketAddrV4::new(*own.ip(), listener.local_addr()?.port());
                data = Some(Data::Awaited(listener));
                format!("227 Passive ({}).\r\n", numbers(at))
            }
            "PORT" => match dialled(argument, client).await {
                Ok(stream) => {
                    data = Some(Data::Dialled(stream));
                    "200 dialled\r\n".to_owned()
                }
                Err(error) => format!("425 {error:#}\r\n"),
            },
            "RETR" => {
                write.write_all(b"150 here it comes\r\n").await?;
                match send(data.take(), argument).await {
                    Ok(()) => "226 done\r\n".to_owned(),
                    Err(error) => format!("426 {error:#}\r\n"),
                }
            }
            _ => format!("500 {line}\r\n"),
        };
        write.write_all(reply.as_bytes()).await?;
    }
    Ok(())
}

/// An address and a port as PORT and 227 write them.
#[must_use]
pub fn numbers(at: SocketAddrV4) -> String {
    let ([a, b, c, d], [high, low]) = (at.ip().octets(), at.port().to_be_bytes());
    format!("{a},{b},{c},{d},{high},{low}")
}

/// What six numbers stand for, if they are in their plainest form.
pub fn place(argument: &str) -> Result<SocketAddrV4> {
    let bytes: Vec<u8> = argument.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let [a, b, c, d, high, low] = bytes[..] else { bail!("not six numbers: {argument}") };
    let at = SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes([high, low]));
    if numbers(at) != argument {
        bail!("not the plainest form: {argument}");
    }
    Ok(at)
}

async fn dialled(argument: &str, client: Ipv4Addr) -> Result<TcpStream> {
    let at = place(argument)?;
    if *at.ip() != client {
        bail!("names {at}");
    }
    timeout(PATIENCE, TcpStream::connect(at)).await?.with_context(|| format!("dial {at}"))
}

async fn send(data: Option<Data>, name: &str) -> Result<()> {
    let mut stream = match data.context("no data connection was asked for")? {
        Data::Dialled(stream) => stream,
        Data::Awaited(listener) => timeout(PATIENCE, listener.accept()).await??.0,
    };
    stream.write_all(name.as_bytes()).await?;
    stream.shutdown().await.context("close the data connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plainest_form_of_an_address_is_taken() {
        let at = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 20_001);
        assert_eq!(place(&numbers(at)).expect("six numbers"), at);
        for odd in ["203,0,113,1,078,33", "203,0,113,1,78,33 ", "203,0,113,1,78", "x"] {
            assert!(place(odd).is_err(), "{odd}");
        }
    }
}
