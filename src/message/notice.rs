//! The notices to WeCom that DeepSeek needs a person, and that it works again.

use super::{SIGNATURE, text};
use crate::outcome::{Outcome, Reason};

/// What can be wrong with an analysis: the words that the failure's message has, what is wrong, and what to do where only a
/// person can end it.
const FAILURES: [(Reason, &str, &str, &str); 15] = [
    (
        Reason::Credentials,
        "look at the account",
        "DeepSeek 账户被停用或限制",
        "登录控制台查看账户状态，或更换 DEEPSEEK_API_KEY",
    ),
    (
        Reason::Credentials,
        "",
        "DeepSeek API Key 被拒绝",
        "检查 DEEPSEEK_API_KEY 是否有效；用 DEEPSEEK_API_KEY_FILE 的，改文件即可，不用重启",
    ),
    (Reason::Balance, "own limit", "DeepSeek 账户用量达到上限", "在控制台调高该账户的用量上限或预算，调好后自动恢复"),
    (
        Reason::Balance,
        "DEEPSEEK_MAX_TOKENS",
        "DeepSeek 账户余额不足",
        "给 DeepSeek 账户充值，或调小 DEEPSEEK_MAX_TOKENS",
    ),
    (Reason::Balance, "", "DeepSeek 账户余额不足", "给 DeepSeek 账户充值，到账后自动恢复"),
    (
        Reason::Configuration,
        "lower DEEPSEEK_MAX_TOKENS",
        "max_tokens 超出模型上限",
        "调小 DEEPSEEK_MAX_TOKENS（0 表示不传该参数），改好后重启本服务",
    ),
    (
        Reason::Configuration,
        "DEEPSEEK_PROXY",
        "接口拒绝本机的地址或地区",
        "设置 DEEPSEEK_PROXY，或更换 DEEPSEEK_BASE_URL，改好后重启本服务",
    ),
    (
        Reason::Configuration,
        "DEEPSEEK_EXTRA",
        "请求参数不被模型支持",
        "按“详情”修改 DEEPSEEK_EXTRA，或换一个 DEEPSEEK_MODEL，改好后重启本服务",
    ),
    (
        Reason::Configuration,
        "set DEEPSEEK_MODEL",
        "模型不可用",
        "把 DEEPSEEK_MODEL 改成该接口提供的模型，改好后重启本服务",
    ),
    (
        Reason::Configuration,
        "does it lack /v1",
        "接口地址有误",
        "检查 DEEPSEEK_BASE_URL（是否缺少 /v1），改好后重启本服务",
    ),
    (
        Reason::Configuration,
        "",
        "DeepSeek 模型或地址配置有误",
        "检查 DEEPSEEK_MODEL 和 DEEPSEEK_BASE_URL，改好后重启本服务",
    ),
    (Reason::Prompt, "", "DeepSeek 拒绝分析这条告警的内容", ""),
    (Reason::RateLimited, "", "DeepSeek 限流", ""),
    (Reason::Timeout, "", "DeepSeek 超时", ""),
    (Reason::DeliveredOverBudget, "", "今日 token 额度已用完（critical 仍会分析）", ""),
];

/// A notice that DeepSeek refuses every request until a person acts: what is wrong, and what to do.
pub(crate) fn analysis_stopped(failure: &Outcome, id: &str) -> String {
    let row = FAILURES.iter().find(|(reason, words, ..)| *reason == failure.reason && failure.message.contains(words));
    let (what, hint) = row.map_or(("DeepSeek 拒绝请求", ""), |(_, _, what, hint)| (what, hint));
    let hint = if hint.is_empty() { "查看本服务的日志" } else { hint };
    let detail = text::disarmed(&failure.message);
    format!(
        "⚠️ AI 分析已暂停：{what}\n处理办法：{hint}\n恢复前不附 AI 分析；10 分钟后遇到新告警会自动重试，恢复后另行通知。\n\
         详情：{detail}\n\n{SIGNATURE} {id}"
    )
}

/// A notice that DeepSeek works again.
pub(crate) fn analysis_resumed(id: &str) -> String {
    format!("✅ AI 分析已恢复。\n\n{SIGNATURE} {id}")
}

/// Why an alert comes without an analysis, in Chinese for the message.
pub(crate) fn why_plain(reason: Reason) -> &'static str {
    let row = FAILURES.iter().find(|(known, words, ..)| *known == reason && words.is_empty());
    row.map_or("DeepSeek 暂时不可用", |(_, _, what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_fits_one_message_and_names_the_remedy() {
        for (reason, remedy) in [
            (Reason::Credentials, "DEEPSEEK_API_KEY"),
            (Reason::Balance, "充值"),
            (Reason::Configuration, "DEEPSEEK_MODEL"),
        ] {
            let text = analysis_stopped(&Outcome::new(reason, "长".repeat(250)), "#000001");
            assert!(text.contains(remedy) && text.len() <= 2048, "{text}");
        }
        for (reason, message, remedy) in [
            (
                Reason::Balance,
                "402: top up the account, or lower DEEPSEEK_MAX_TOKENS",
                "充值，或调小 DEEPSEEK_MAX_TOKENS",
            ),
            (Reason::Balance, "429: raise the account's own limit", "用量上限"),
            (Reason::Credentials, "401: look at the account of DEEPSEEK_API_KEY", "查看账户状态"),
            (
                Reason::Configuration,
                "403: country; set DEEPSEEK_PROXY, or change DEEPSEEK_BASE_URL",
                "设置 DEEPSEEK_PROXY",
            ),
            (
                Reason::Configuration,
                "400: max_tokens; lower DEEPSEEK_MAX_TOKENS; 0 sends none",
                "调小 DEEPSEEK_MAX_TOKENS",
            ),
            (Reason::Configuration, "400: top_k; change DEEPSEEK_EXTRA, or DEEPSEEK_MODEL", "修改 DEEPSEEK_EXTRA"),
            (
                Reason::Configuration,
                "404: set DEEPSEEK_MODEL to a model that this endpoint offers",
                "把 DEEPSEEK_MODEL 改成",
            ),
            (Reason::Configuration, "200: a web page: check DEEPSEEK_BASE_URL (does it lack /v1?)", "是否缺少 /v1"),
        ] {
            let text = analysis_stopped(&Outcome::new(reason, message), "#000001");
            assert!(text.contains(remedy), "{text}");
        }
    }
}
