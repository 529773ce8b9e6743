//! URLs as they are printed and as errors show them: without the password that may be in them.

const HIDDEN: &str = "***";

/// The URL with what is between a user's name and `@`, and what a query calls a password, replaced.
///
/// What was meant for a URL and is none is hidden from its first `:` or, without one, to its last `@`: rather too much than
/// too little.
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A password may have characters in it that should have been written otherwise.
    let shown = match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}{user}:{HIDDEN}@{place}"),
            None if scheme.is_empty() => format!("{HIDDEN}@{place}"),
            None => format!("{scheme}{rest}"),
        },
        None => scheme + &without_odd_port(rest),
    };
    let Some((shown, query)) = shown.split_once('?') else { return shown };
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}={HIDDEN}"),
        _ => part.to_owned(),
    });
    format!("{shown}?{}", parts.collect::<Vec<_>>().join("&"))
}

/// Of `user:password`, which lacks its host, the user: what is behind a host's `:` is a number, or it is none.
fn without_odd_port(rest: &str) -> String {
    // An IPv6 address is in brackets.
    let begin = rest.find(']').map_or(0, |end| end + 1);
    let Some(colon) = rest[begin..].find(':').map(|at| begin + at) else { return rest.to_owned() };
    let behind = &rest[colon + 1..];
    let port = behind.split(['/', '?']).next().unwrap_or(behind);
    match port.parse::<u16>() {
        Ok(_) => rest.to_owned(),
        Err(_) => format!("{}:{HIDDEN}", &rest[..colon]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        for (url, shown) in [
            ("", ""),
            ("postgres://u@h/d?sslmode=verify-full", "postgres://u@h/d?sslmode=verify-full"),
            ("postgres://u:secret@h:5432/d", "postgres://u:***@h:5432/d"),
            ("postgres://u:se@c/r:e?t@h/d", "postgres://u:***@h/d"),
            ("postgres://h/d?user=u&password=secret&x=1", "postgres://h/d?user=u&password=***&x=1"),
            ("postgres://h/d?sslpassword=secret", "postgres://h/d?sslpassword=***"),
            ("postgres://h/d?passwd=secret", "postgres://h/d?passwd=***"),
            ("redis://:secret@h/0", "redis://:***@h/0"),
            ("rediss://h:6379", "rediss://h:6379"),
            ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }

    #[test]
    fn passwords_of_what_is_no_url_are_hidden_as_well() {
        for (text, shown) in [
            ("mysql://u:secret@h/d", "mysql://u:***@h/d"),
            ("u:secret@h/d", "u:***@h/d"),
            ("secret@h/d", "***@h/d"),
            ("postgres:/u:secret@h/d", "postgres:***@h/d"),
            ("postgres:u:secret", "postgres:***"),
            ("postgres://u:secret", "postgres://u:***"),
            ("postgres://u:99999", "postgres://u:***"),
            ("//[:secret", "//[:***"),
            ("h:5432/d", "h:5432/d"),
        ] {
            assert_eq!(without_password(text), shown, "{text}");
        }
    }
}
