//! The page for people on call: files that are built by npm (`daemons/api/page`) and are in this program.
//!
//! They are the same for everybody and have no secrets: what the page shows, it asks for with its reader's login.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use crate::http::{condition, problem::Problem};

/// What the page may do: load its own files, and ask this server. No inline script or style, nothing of elsewhere, no markup made
/// of text, and no other page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
struct File {
    kind: &'static str,
    text: &'static str,
}

const HTML: File =
    File { kind: "text/html; charset=utf-8", text: include_str!("../../page/dist/index.html") };
const SCRIPT: File =
    File { kind: "text/javascript; charset=utf-8", text: include_str!("../../page/dist/page.js") };
const STYLE: File = File { kind: "text/css; charset=utf-8", text: include_str!("../../page/dist/page.css") };
const ICON: File = File { kind: "image/svg+xml", text: include_str!("../../page/dist/icon.svg") };

impl File {
    /// The file, or 304 if who asks has it. Browsers ask each time: the next version of the program has another page.
    fn answer(&self, asked: &HeaderMap) -> Result<Response, Problem> {
        let etag = format!("\"{}\"", blake3::hash(self.text.as_bytes()).to_hex());
        let mut response = match condition::knows(asked, |known| known == etag)? {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(header::CONTENT_TYPE, self.kind)], self.text).into_response(),
        };
        let headers = response.headers_mut();
        let fixed: [(HeaderName, &'static str); 5] = [
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::ETAG, HeaderValue::from_str(&etag).expect("digits and quotes"));
        Ok(response)
    }
}

/// The page
#[utoipa::path(get, path = "/", operation_id = "page", tag = "page", responses(
    (status = 200, body = String, content_type = "text/html; charset=utf-8", headers(("ETag" = String))),
    (status = 304, description = "It has not changed")))]
pub(crate) async fn html(headers: HeaderMap) -> Result<Response, Problem> {
    HTML.answer(&headers)
}

/// Its script
#[utoipa::path(get, path = "/page.js", operation_id = "page_script", tag = "page", responses(
    (status = 200, body = String, content_type = "text/javascript; charset=utf-8", headers(("ETag" = String))),
    (status = 304, description = "It has not changed")))]
pub(crate) async fn script(headers: HeaderMap) -> Result<Response, Problem> {
    SCRIPT.answer(&headers)
}

/// Its style
#[utoipa::path(get, path = "/page.css", operation_id = "page_style", tag = "page", responses(
    (status = 200, body = String, content_type = "text/css; charset=utf-8", headers(("ETag" = String))),
    (status = 304, description = "It has not changed")))]
pub(crate) async fn style(headers: HeaderMap) -> Result<Response, Problem> {
    STYLE.answer(&headers)
}

/// Its icon
#[utoipa::path(get, path = "/icon.svg", operation_id = "page_icon", tag = "page", responses(
    (status = 200, body = String, content_type = "image/svg+xml", headers(("ETag" = String))),
    (status = 304, description = "It has not changed")))]
pub(crate) async fn icon(headers: HeaderMap) -> Result<Response, Problem> {
    ICON.answer(&headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_page_is_inline_or_of_elsewhere() {
        for file in [HTML, SCRIPT, STYLE, ICON] {
            for (at, _) in file.text.match_indices("://") {
                // Names of XML's spaces are no addresses.
                assert!(file.text[at..].starts_with("://www.w3.org/"), "{}: {at}", file.kind);
            }
        }
        for inline in ["<style", "style=", " onclick", " onload", "<script>"] {
            assert!(!HTML.text.contains(inline), "{inline}");
        }
        for file in ["/page.js", "/page.css", "/icon.svg"] {
            assert!(HTML.text.contains(&format!("\"{file}\"")), "{file}");
        }
    }

    #[test]
    fn who_has_a_file_is_told_so() {
        let first = HTML.answer(&HeaderMap::new()).unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let etag = first.headers()[header::ETAG].clone();
        let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, etag.clone())]);
        let again = HTML.answer(&asked).unwrap();
        assert_eq!((again.status(), &again.headers()[header::ETAG]), (StatusCode::NOT_MODIFIED, &etag));
        assert!(!again.headers().contains_key(header::CONTENT_TYPE));
        assert_eq!(SCRIPT.answer(&asked).unwrap().status(), StatusCode::OK);
    }
}
