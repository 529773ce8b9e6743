//! URLs as they are printed: without the password that may be in them.

const HIDDEN: &str = "***";

/// The URL with what is between a user's name and `@`, and what a query calls `password`, replaced.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may have characters in it that should have been written otherwise: rather too much is hidden.
    let login = rest.rsplit_once('@').and_then(|(login, place)| Some((login.split_once(':')?.0, place)));
    let shown = match login {
        Some((user, place)) => format!("{scheme}://{user}:{HIDDEN}@{place}"),
        None => format!("{scheme}://{rest}"),
    };
    let Some((shown, query)) = shown.split_once('?') else { return shown };
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}={HIDDEN}"),
        _ => part.to_owned(),
    });
    format!("{shown}?{}", parts.collect::<Vec<_>>().join("&"))
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
            ("redis://:secret@h/0", "redis://:***@h/0"),
            ("rediss://h:6379", "rediss://h:6379"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }
}
